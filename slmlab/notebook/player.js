const players = [...document.querySelectorAll('section')].map(section => {
  const audio = section.querySelector('audio'), head = section.querySelector('i');
  const box = section.querySelector('div'), words = [...section.querySelectorAll('span')];
  const left = +box.dataset.left, width = +box.dataset.width, seconds = +box.dataset.seconds;
  const follow = () => {
    head.style.left = 100 * (left + width * Math.min(1, audio.currentTime / seconds)) + '%';
    for (const word of words)
      word.className = audio.currentTime >= word.dataset.from && audio.currentTime < word.dataset.to
        ? 'now' : '';
    if (!audio.paused) requestAnimationFrame(follow);
  };
  const move = time => { audio.currentTime = Math.max(0, Math.min(audio.duration || 0, time)); };
  audio.addEventListener('play', () => {
    section.focus({ preventScroll: true });  // so that its keys work whatever was clicked
    for (const other of players) if (other !== audio) other.pause();
    follow();
  });
  audio.addEventListener('seeked', follow);
  audio.addEventListener('pause', follow);
  box.addEventListener('click', event => {
    const place = box.getBoundingClientRect();
    move(((event.clientX - place.left) / place.width - left) / width * seconds);
    section.focus();
  });
  section.addEventListener('keydown', event => {
    const keys = { ' ': () => audio.paused ? audio.play() : audio.pause(),
      ArrowLeft: () => move(audio.currentTime - 0.1), ArrowRight: () => move(audio.currentTime + 0.1),
      Home: () => move(0), End: () => move(audio.duration), m: () => { audio.muted = !audio.muted; } };
    if (event.key in keys) { event.preventDefault(); event.stopPropagation(); keys[event.key](); }
  }, true);
  return audio;
});
const fit = () => { if (window.frameElement) window.frameElement.style.height =
  document.documentElement.offsetHeight + 4 + 'px'; };
new ResizeObserver(fit).observe(document.body);

// Players, keys, the listen-first gate and what is reported with a vote. Gradio has no hotkeys of its own.
(() => {
  const SECOND_CLICK = 400; // ms in which a click was meant for the trial before
  const SLOW = 6000; // ms after which a sound that is still loading is told, and voted without
  const section = () => [...document.querySelectorAll("section.trial")].find((s) => s.offsetParent !== null);
  const clips = (s) => [...s.querySelectorAll("audio")];
  const wholly = (a) => { // what was played, not what an event claims
    const { length } = a.played;
    const seconds = Array.from({ length }, (_, i) => a.played.end(i) - a.played.start(i)).reduce((x, y) => x + y, 0);
    return Boolean(a.dataset.plays) && seconds >= 0.95 * a.duration; // never so of a length that is not known
  };
  const heard = (s) => clips(s).every(wholly);
  const seen = (s) => (s.dataset.since ||= String(performance.now()));

  // Only a touch or a key leads here: phones play nothing by themselves, and some load nothing before.
  function play(audio) {
    const s = audio.closest("section");
    clips(s).forEach((other) => other.pause());
    if (audio.error || (!audio.dataset.plays && audio.played.length)) audio.load(); // or played in another trial
    audio.currentTime = 0; // short clips are always heard from their beginning
    audio.dataset.plays = Number(audio.dataset.plays || 0) + 1;
    say(s, "");
    audio.play().catch((error) => {
      if (error.name === "NotAllowedError") stuck(s, "Your browser held the sound back: press once more.");
      else if (error.name !== "AbortError") stuck(s, LOST); // which is another clip's turn
    });
    const { src } = audio;
    setTimeout(() => {
      if (loading(audio) && audio.src === src) stuck(s, "The connection is slow, the sound still loads: wait, or vote without hearing.");
    }, SLOW);
  }

  const LOST = "A sound did not load: press it again, vote without hearing, or skip.";
  const loading = (a) => !a.paused && !a.error && a.readyState < HTMLMediaElement.HAVE_FUTURE_DATA;

  function stuck(s, text) { // there is always a way on
    say(s, text);
    s.querySelector(".override").hidden = Boolean(s.dataset.override);
  }

  function say(s, text) {
    s.querySelector(".message").textContent = text;
  }

  // Runs before Gradio's own handler: a vote leaves only once, and only when its clips were heard.
  function gate(event) {
    const button = event.target.closest(".decide button, button.decide");
    const s = section();
    if (!button || !s) return;
    const decision = button.id.split("-")[1];
    const late = performance.now() - Number(seen(s)) > SECOND_CLICK;
    const free = decision === "skip" || decision === "undo" || heard(s) || s.dataset.override;
    const first = decision === "undo" && s.dataset.trial === "0";
    if (first) say(s, "There is nothing to undo.");
    if (free && late && !first && !s.dataset.sent) {
      s.dataset.decision = decision;
      s.dataset.sent = "1";
      clips(s).forEach((a) => a.pause());
      const { trial, attempt } = s.dataset;
      setTimeout(() => {
        if (!s.dataset.sent || s.dataset.trial !== trial || s.dataset.attempt !== attempt) return;
        delete s.dataset.sent; // the same vote sent again counts once
        say(s, "Not answered yet: is the server there? Nothing is lost; press again.");
      }, 5000);
      return;
    }
    event.stopImmediatePropagation();
    event.preventDefault();
    if (!free) stuck(s, "Hear every clip to its end first.");
  }

  // With a login somebody else logs in; without, only the token leads back, so that a slip must not lose it.
  function leave(event) {
    const button = event.target.closest("button.leave");
    if (!button) return;
    const s = section();
    const named = document.querySelector("#who .named");
    const done = !s || s.classList.contains("done");
    if (named || !(done || confirm("Your answers are kept, but you cannot go on with this round. Leave it?"))) {
      event.stopImmediatePropagation();
      event.preventDefault();
      if (named) location.assign("logout?all_session=false");
      return;
    }
    if (s) clips(s).forEach((a) => a.pause());
  }

  function report() {
    const s = section();
    if (!s) return "{}";
    return JSON.stringify({
      decision: s.dataset.decision,
      trial: Number(s.dataset.trial),
      attempt: Number(s.dataset.attempt),
      heard: heard(s),
      override: Boolean(s.dataset.override),
      plays: clips(s).map((a) => Number(a.dataset.plays || 0)),
      ms: Math.round(performance.now() - Number(seen(s))),
    });
  }

  function press(event) {
    const typing = event.target.closest("textarea, input:not([type=checkbox])");
    const s = section();
    if (!s || typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const what = JSON.parse(s.dataset.keys)[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (what === undefined) return;
    event.preventDefault();
    if (typeof what === "number") play(clips(s)[what]);
    else if (what === "override") s.querySelector(".override").click();
    else document.getElementById(`${s.dataset.face}-${what}`)?.click();
  }

  document.addEventListener("click", gate, true);
  document.addEventListener("click", leave, true);
  document.addEventListener("click", (event) => {
    const s = section();
    const button = event.target.closest("section.trial button");
    if (!s || !button) return;
    if (button.dataset.clip !== undefined) play(clips(s)[Number(button.dataset.clip)]);
    if (button.classList.contains("override")) {
      s.dataset.override = "1";
      button.hidden = true;
      say(s, "You may vote without hearing; it is noted.");
    }
  });
  document.addEventListener("keydown", press);
  for (const name of ["play", "waiting", "playing", "pause", "timeupdate", "ended", "error"])
    document.addEventListener(name, (event) => {
      const audio = event.target;
      const s = audio.closest?.("section.trial");
      if (!s) return;
      const button = s.querySelector(`button[data-clip="${clips(s).indexOf(audio)}"]`);
      if (name === "error") stuck(s, LOST);
      button.classList.toggle("loading", loading(audio));
      button.classList.toggle("playing", !audio.paused && !audio.ended);
      button.classList.toggle("heard", wholly(audio));
      button.style.setProperty("--part", audio.duration ? audio.currentTime / audio.duration : 0);
    }, true);
  // Gradio changes a page in place: what it did not send (when seen, heard, sent) is gone with each new trial.
  new MutationObserver(() => document.querySelectorAll("section.trial").forEach(seen))
    .observe(document, { childList: true, subtree: true, attributeFilter: ["data-trial", "data-attempt"] });
  window.slmlab = { report };
})();

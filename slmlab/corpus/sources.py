"""Sources of people's recordings: what each one is, as data, and how its files come here, each one verified.

`data/sources/NAME.toml` says where a source's home is, what it allows and how its transcripts are found;
`NAME.tsv` beside it lists its recordings by sha256. Neither sounds nor texts are there: `fetch` takes them
from the home by git, or from a folder that has them.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from slmlab import files
from slmlab.corpus import tables
from slmlab.errors import LabError
from slmlab.language.texts import lines_of, read_text

SOURCES = files.DATA / "sources"
TABLE = "recordings.tsv"
"""What a folder of recordings says of each of its files."""
COMPLETE = "complete.json"
"""Written last: the mark of a folder in which every recording of a source is verified."""
BATCH = 64
"""Sounds that git is asked for at once, which is what a kill can cost."""
Arrival = tuple[str, str, str, bytes | None]
"""A recording's name in the list, its transcript, the ending of its file; its bytes, unless it is here."""


@dataclass(frozen=True)
class Source:
    """A public collection of recordings, as `data/sources/NAME.toml` has it.

    `sounds` and `transcripts` are patterns of paths at the `home`, and all that is ever taken; `form` is one
    of TRANSCRIPTS. In a transcript `marker` begins a sentence, of which only the first was read, and
    characters to `ignore` are no text; `texts` is sha256 of all, as lines of `name, tab, text`. The list's
    `sha256` is of files that end in `suffix`, its `original` of the WAV file at the home.
    """

    name: str
    language: str
    readers: dict[str, str]
    home: str
    commit: str
    sounds: str
    transcripts: str
    form: str
    texts: str
    leave_out: str
    licence: str
    copyright: str
    sentence: str
    ships: bool
    suffix: str = ".wav"
    marker: str = ""
    ignore: str = ""

    @property
    def folder(self) -> Path:
        """Where its recordings lie once they are here."""
        return files.RECORDINGS / self.name

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """What is listed of each recording, by name."""
        return {row["file"]: row for row in _table(SOURCES / f"{self.name}.tsv")}

    @property
    def terms(self) -> str:
        """Under what terms its recordings may be used."""
        return f"{self.licence}, {self.copyright}: {self.sentence}"

    @property
    def mark(self) -> str:
        """A digest of settings and list, which a complete folder was made by."""
        return files.digest([self, self.rows])

    @property
    def is_complete(self) -> bool:
        """Whether all its recordings came, by the settings and the list of today."""
        mark = self.folder / COMPLETE
        return mark.exists() and files.read_json(mark) == self.mark

    def sums(self, file: str) -> dict[str, str]:
        """Endings under which a recording may lie here, each with its sha256."""
        row = self.rows[file]
        return {".wav": row.get("original", row["sha256"]), self.suffix: row["sha256"]}

    def read(self, transcript: str) -> str:
        """The words of a transcript that were read, in one line."""
        parts = transcript.split(self.marker) if self.marker else [transcript]
        first = next((part for part in parts if part.strip()), "")
        return " ".join("".join(" " if c in self.ignore else c for c in first).split())


def find(name: str) -> Source:
    """A source by its name; LabError lists those that there are, or says what is wrong in its file."""
    path, names = SOURCES / f"{name}.toml", sorted(path.stem for path in SOURCES.glob("*.toml"))
    if name not in names:
        raise LabError(f"there is no source {name!r}: {SOURCES} has {', '.join(names)}.")
    try:
        source = Source(name, **tomllib.loads(read_text(path)))
    except (ValueError, TypeError) as error:
        raise LabError(f"{path} does not describe a source ({error}): see {SOURCES / 'README.md'}.") from None
    if not re.fullmatch("[0-9a-f]{40}", source.commit) or source.form not in TRANSCRIPTS:
        raise LabError(
            f"{path}: commit must be 40 hexadecimal digits, and form one of {', '.join(TRANSCRIPTS)}."
        )
    return source


def shippable(name: str) -> None:
    """LabError if what has heard this source may not be passed on."""
    source = find(name)
    if not source.ships:
        raise LabError(
            f"networks that have heard {name} may not be shipped: its home gives no licence for that, only "
            f"this: {source.sentence!r}. Keep them here, or train without it."
        )


def in_manifest(rows: pd.DataFrame) -> list[str]:
    """Names of the sources that recordings of a manifest come from, by their consent or where they lie."""
    consents, folders = set(rows["consent"]), {Path(file).parent for file in rows["file"]}
    every = (find(path.stem) for path in sorted(SOURCES.glob("*.toml")))
    return [s.name for s in every if s.terms in consents or s.folder.resolve() in folders]


def recordings(name: str) -> Path:
    """The complete folder of a source; LabError says how to get it."""
    source = find(name)
    if not source.is_complete:
        raise LabError(f"the recordings of {name} are not here, or not all: `slmlab fetch {name}`.")
    return source.folder


def fetch(name: str, place: Path | None = None) -> Path:
    """Bring a source's recordings here, verified, and return their folder; what is here already stays.

    Args:
        name: of the source.
        place: in place of its home, a folder that has NAME.tsv and NAME/, or a clone of the home.

    Raises:
        LabError: something is missing or has another sha256; what could be verified is kept.
    """
    source, texts, foreign = find(name), {}, []
    here = _verified(source)
    if source.is_complete and len(here) == len(source.rows):
        return source.folder
    (source.folder / COMPLETE).unlink(missing_ok=True)
    bar = tqdm(_arrivals(source, here, place), name, len(source.rows), unit="file", disable=None)
    for file, transcript, suffix, content in bar:
        path = source.folder / (file + suffix)
        if content is not None:
            if hashlib.sha256(content).hexdigest() != source.sums(file)[suffix]:
                foreign.append(path.name)
                continue
            with files.whole(path) as part:
                part.write_bytes(content)
            here[file] = path
        texts[file] = source.read(transcript)
    origin, kept = place or source.home, f"{len(here)} of {len(source.rows)} are verified in {source.folder}"
    if foreign:
        raise LabError(
            f"{foreign[0]} from {origin} has another sha256 than {name}.tsv lists; such files were left out: "
            f"{len(foreign)}; {kept}. Get them anew and run the same command again."
        )
    if missing := [file for file in source.rows if file not in here or not texts.get(file)]:
        raise LabError(
            f"{origin} lacks recordings of {name} or their texts: {len(missing)}, the first {missing[0]}; "
            f"{kept}. Run the same command with what has them; without --from it asks the home."
        )
    found = hashlib.sha256("\n".join(f"{file}\t{texts[file]}" for file in source.rows).encode()).hexdigest()
    if found != source.texts:
        raise LabError(f"texts from {origin} are others than {name}.toml knows (sha256 {found}); {kept}.")
    rows = [
        {"file": here[file].name, "text": texts[file], "language": source.language, "consent": source.terms}
        | {field: row[field] for field in ("speaker", "session", "split", "seconds")}
        for file, row in source.rows.items()
    ]
    table = [list(rows[0]), *(row.values() for row in rows)]
    files.replace_text(source.folder / TABLE, "".join("\t".join(row) + "\n" for row in table))
    files.write_json(source.folder / COMPLETE, source.mark)
    return source.folder


def _verified(source: Source) -> dict[str, Path]:
    """Recordings that are here, by name; what has a name of theirs and is none goes."""
    here = {}
    for file in source.rows:
        for suffix, wanted in source.sums(file).items():
            path = source.folder / (file + suffix)
            if path.exists() and files.sha256_of(path) == wanted:
                here[file] = path
            else:
                path.unlink(missing_ok=True)
    return here


def _table(path: Path) -> list[dict[str, str]]:
    rows = list(tables.with_names(path, ("file",)))
    if wrong := [row.fault for row, _ in rows if row.fault]:
        raise LabError(wrong[0])
    return [cells for _, cells in rows]


def _arrivals(source: Source, here: Collection[str], place: Path | None) -> Iterator[Arrival]:
    """Every recording that the home or the folder has, with its transcript."""
    if place is None:
        return _from_home(source, here, source.home)
    if (place / f"{source.name}.tsv").is_file() and (place / source.name).is_dir():
        return _from_folder(source, here, place)
    if (place / ".git").exists() or (place / "objects").is_dir():
        return _from_home(source, here, str(place.resolve()))
    raise LabError(
        f"{place} has no {source.name}.tsv beside a folder {source.name}, and is no clone of {source.home}: "
        "give another folder, or leave out --from."
    )


def _from_folder(source: Source, here: Collection[str], place: Path) -> Iterator[Arrival]:
    told = {Path(row["file"]).stem: row.get("text", "") for row in _table(place / f"{source.name}.tsv")}
    for file in source.rows:
        path = place / source.name / (file + source.suffix)
        if file in here or path.is_file():
            yield file, told.get(file, ""), source.suffix, None if file in here else path.read_bytes()


def _from_home(source: Source, here: Collection[str], home: str) -> Iterator[Arrival]:
    """By git, of the pinned commit: transcripts and sounds that are not here, nothing else if the server can
    choose; into a repository that goes at the end.
    """
    names = {source.sums(file)[".wav"]: file for file in source.rows}
    known = {_blob(path): file for file in here if (path := source.folder / f"{file}.wav").exists()}
    repository = files.CACHE / "homes" / source.name
    git = partial(_git, repository, home)
    shutil.rmtree(repository, ignore_errors=True)
    repository.mkdir(parents=True)
    try:
        git("init", "--quiet", "--bare")
        git("remote", "add", "origin", home)
        git("fetch", "--quiet", "--no-tags", "--depth=1", "--filter=blob:none", "origin", source.commit)
        listed = git("rev-list", "--objects", "--missing=print", source.commit).decode(errors="replace")
        missing = {line[1:] for line in listed.split("\n") if line.startswith("?")}
        entries = git("ls-tree", "-r", "-z", source.commit).decode(errors="replace").split("\0")
        tree = {path: meta.split()[2] for meta, tab, path in (e.partition("\t") for e in entries) if tab}
        written = {path: blob for path, blob in tree.items() if fnmatchcase(path, source.transcripts)}
        contents = dict(_contents(git, sorted(set(written.values())), missing, len(written)))
        texts = TRANSCRIPTS[source.form](
            {p: contents[b].decode("utf-8-sig", "replace") for p, b in written.items()}
        )
        sounds = {blob: Path(path).stem for path, blob in tree.items() if fnmatchcase(path, source.sounds)}
        for blob in sounds.keys() & known.keys():
            yield known[blob], texts.get(sounds[blob], ""), ".wav", None
        for blob, content in _contents(git, [b for b in sounds if b not in known], missing, BATCH):
            if file := names.get(hashlib.sha256(content).hexdigest()):
                yield file, texts.get(sounds[blob], ""), ".wav", None if file in here else content
    finally:
        shutil.rmtree(repository, ignore_errors=True)


def _blob(path: Path) -> str:
    """The name that git gives to a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _contents(
    git: Callable[..., bytes], blobs: Sequence[str], missing: set[str], size: int
) -> Iterator[tuple[str, bytes]]:
    """Contents of blobs, fetched `size` at a time where they are missing."""
    fetching = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--stdin")
    for start in range(0, len(blobs), max(size, 1)):
        some = blobs[start : start + size]
        if lacking := [blob for blob in some if blob in missing]:
            git("-c", "fetch.negotiationAlgorithm=noop", *fetching, "origin", given=lacking)
        stream = io.BytesIO(git("cat-file", "--batch", given=some))
        for blob in some:
            yield blob, stream.read(int(stream.readline().split()[2]))
            stream.readline()


def _git(repository: Path, home: str, *arguments: str, given: Sequence[str] = ()) -> bytes:
    """What a git command prints, given lines to read; LabError says what git says."""
    stalled = ("-c", "http.lowSpeedLimit=100", "-c", "http.lowSpeedTime=60")
    command = ("git", f"--git-dir={repository}", *stalled, *arguments)
    quiet = os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    lines = "".join(f"{line}\n" for line in given).encode()
    try:
        done = subprocess.run(command, input=lines, capture_output=True, env=quiet)
    except FileNotFoundError:
        raise LabError("git is not here: install it (git-scm.com), or give a folder with --from.") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().split("\n")
        told = next((line for line in said if line.startswith(("fatal:", "error:"))), said[-1])
        remedy = "Free some space" if "No space left" in " ".join(said) else "Check the connection"
        raise LabError(
            f"not all came from {home} ({told}); what was verified is kept. {remedy} and run the same "
            "command again, or give a folder that has the recordings with --from."
        )
    return done.stdout


def _linker(written: dict[str, str]) -> dict[str, str]:
    """Lig-Aikuma's form: a linker says which line of the other text in its folder each sound reads."""
    lines, found = {}, {}
    for path in sorted(written, key=lambda path: path.endswith("_linker.txt")):
        if not path.endswith("_linker.txt"):
            lines[Path(path).parent] = lines_of(written[path])
            continue
        for number, sound in re.findall(r"\(line (\d+)\) ; (.*\S)", written[path]):
            found[Path(sound).stem] = "".join(lines[Path(path).parent][int(number) - 1 : int(number)])
    return found


def _lines(written: dict[str, str]) -> dict[str, str]:
    """Lines of `sound:text`."""
    parts = (line.partition(":") for text in written.values() for line in lines_of(text))
    return {sound: text for sound, _, text in parts}


def _beside(written: dict[str, str]) -> dict[str, str]:
    """A file of text for each sound, of the same name but for its ending."""
    return {Path(path).stem: text for path, text in written.items()}


TRANSCRIPTS = {"linker": _linker, "lines": _lines, "beside": _beside}
"""How homes write transcripts: from the files that hold them, by path, to texts by the sounds' names."""

"""Votes for other programs: the same table from either file, and TRL takes a step on it."""

import copy
import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from slmlab.corpus import pairs
from slmlab.errors import LabError
from slmlab.people import export, ranking, simulated, views
from slmlab.people.design import LEFT, SKIP
from slmlab.people.store import Store, Vote

TASTE = {"a": 1.5, "b": 0.0, "c": -1.5}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six simulated honest listeners, a careless one, and clips that carry speech tokens."""
    test = simulated.paper_test(3, 12)
    clips = tuple(
        dataclasses.replace(c, tokens=(i % 7, (i + 1) % 7, i % 5), sha256=f"{i:064x}", seed=i)
        for i, c in enumerate(test.clips)
    )
    made = Store(tmp_path_factory.mktemp("export") / "votes.db")
    made.set_test(dataclasses.replace(test, clips=clips, n_main=20))
    for listener in (*simulated.crowd(6, TASTE), *simulated.crowd(1, TASTE, "left")):
        simulated.listen(made, listener)
    return made


def test_every_row_is_a_vote_that_counts(store: Store) -> None:
    table = export.preferences(store)
    assert set(table["annotator"]) == {f"simulated L0{i}" for i in range(1, 7)}, (
        "the left-clicker's are left out"
    )
    assert set(table["decision"]) == {"A", "B"}
    clips = {c.sha256: c for c in store.test.clips}
    for row in table.itertuples():
        chosen = clips[row.chosen_sha256]
        assert chosen.system == row.chosen_system
        assert row.chosen == "".join(f"<|s_{t}|>" for t in chosen.tokens)
        assert list(row.chosen_tokens) == list(chosen.tokens)
        assert row.prompt == chosen.text == clips[row.rejected_sha256].text
        assert {row.chosen_system, row.rejected_system} <= set("abc")
    better = (table["chosen_system"] < table["rejected_system"]).mean()
    assert better > 0.7, "the better system is chosen more often"


def test_no_prompt_stands_on_both_sides_of_the_split() -> None:
    prompts = [f"Sentence {i}." for i in range(2000)]
    share = sum(export.split_of(p) == "test" for p in prompts) / len(prompts)
    assert 0.08 < share < 0.12
    assert [export.split_of(p) for p in prompts] == [export.split_of(p) for p in prompts]


def test_importing_gives_the_same_table_from_either_file(store: Store, tmp_path: Path) -> None:
    export.write(store, tmp_path)
    table = export.preferences(store)
    for name in ("preferences.parquet", "preferences.jsonl"):
        pd.testing.assert_frame_equal(export.read(tmp_path / name), table)


def test_the_export_is_a_table_of_pairs(store: Store, tmp_path: Path) -> None:
    export.write(store, tmp_path)
    table, either = (
        export.preferences(store),
        [pairs.read(tmp_path / f"preferences.{ending}", "sw") for ending in ("parquet", "jsonl")],
    )
    assert either[0] == either[1]
    apart = table[table["chosen"] != table["rejected"]]
    assert [pair.id for pair in either[0]] == list(apart["id"])
    for pair, row in zip(either[0], apart.itertuples(), strict=True):
        assert (pair.language, pair.origin, pair.group) == ("sw", "people", export.split_of(row.prompt))
        assert (pair.chosen_tokens, pair.rejected_sha256) == (tuple(row.chosen_tokens), row.rejected_sha256)


def assert_same_but_for_names(other: Store, store: Store) -> None:
    """The other store has numbers for names; nothing else may differ."""
    people = export.annotators(store)
    for theirs, ours in ((other.votes(), store.votes()), (other.sessions(), store.sessions())):
        pd.testing.assert_frame_equal(theirs, ours.assign(listener=[people[n] for n in ours["listener"]]))


def test_events_carried_to_another_store_give_the_same_tables(store: Store, tmp_path: Path) -> None:
    export.write(store, tmp_path)
    other = Store(tmp_path / "other.db")
    export.take_in(tmp_path / "events.jsonl", other)
    assert_same_but_for_names(other, store)
    pd.testing.assert_frame_equal(export.preferences(other), export.preferences(store))


def test_programs_are_marked_as_such_in_every_file(store: Store, tmp_path: Path) -> None:
    export.write(store, tmp_path)
    votes = pd.read_parquet(tmp_path / "votes.parquet")
    assert set(votes["listener"]) == {f"simulated L0{i}" for i in range(1, 8)}
    assert set(export.read(tmp_path / "preferences.jsonl")["annotator"]) < set(votes["listener"])
    began = [event["body"] for _, event in pairs.numbered(tmp_path / "events.jsonl")]
    assert {body["listener"] for body in began if "listener" in body} == set(votes["listener"])
    assert "honest" not in (tmp_path / "events.jsonl").read_text()


def test_the_page_says_where_votes_went_and_what_was_left_out(store: Store, tmp_path: Path) -> None:
    page = views.export_page(store, export.write(store, tmp_path / "<out>"))
    n = len(export.preferences(store))
    assert f"{n} of {len(ranking.votes_of(store))} votes on pairs are preferences" in page
    assert "nor what 1 excluded listeners said" in page
    assert f"{tmp_path}/&lt;out&gt;" in page
    assert "--clips" not in page


def test_a_round_is_announced_as_it_will_be(store: Store) -> None:
    token = store.open_session("Ana")
    announced = views.round_length(store.test)
    kinds = [trial.kind for trial in store.place(token).trials]
    assert announced.startswith(
        f"A round has {len(kinds)} judgements, 2 to warm up, 12 whose answer is known"
    )
    assert f"{kinds.count('repeat')} asked twice among them" in announced


def test_people_keep_their_numbers_from_one_export_to_the_next(tmp_path: Path) -> None:
    """Ana comes first and votes last, so that neither her first vote nor its undoing may count."""
    store, other = Store(tmp_path / "votes.db"), Store(tmp_path / "other.db")
    store.set_test(simulated.paper_test(2, 6))
    ana = store.open_session("Ana")
    export.write(store, tmp_path)
    export.take_in(tmp_path / "events.jsonl", other)
    store.vote(store.open_session("Bayo"), 0, 0, Vote(LEFT))
    store.vote(ana, 0, 0, Vote(LEFT))
    export.write(store, tmp_path)
    export.take_in(tmp_path / "events.jsonl", other)
    assert export.annotators(store) == {"Ana": "L01", "Bayo": "L02"}
    assert_same_but_for_names(other, store)
    assert not {"Ana", "Bayo"} & set((tmp_path / "events.jsonl").read_text().split('"'))


def test_ratings_are_exported_beside_pairs_and_people_keep_their_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path / "votes.db")
    store.set_test(simulated.paper_test(2, 6))
    rater, judge = simulated.crowd(2, TASTE)
    simulated.listen(store, rater, "nmos")
    simulated.listen(store, judge)
    export.write(store, tmp_path)
    votes = pd.read_parquet(tmp_path / "votes.parquet")
    assert votes.groupby("listener")["task"].unique().map(list).to_dict() == {
        "simulated L01": ["nmos"],
        "simulated L02": ["pair"],
    }
    assert set(votes.loc[votes["task"] == "nmos", "decision"]) <= set("12345") | {SKIP}
    assert set(votes.loc[votes["task"] == "nmos", "system"]) >= {"a", "b"}
    assert set(export.preferences(store)["annotator"]) == {"simulated L02"}, "the same number in every file"


def test_without_tokens_a_sound_is_named_by_its_hash(tmp_path: Path) -> None:
    store = Store(tmp_path / "votes.db")
    store.set_test(simulated.paper_test(2, 3, 0))
    token = store.open_session("Ana")
    store.vote(token, 0, 0, Vote(LEFT))
    row = export.preferences(store).iloc[0]
    assert row["chosen"].startswith("sha256:")
    assert list(row["chosen_tokens"]) == []


def test_no_votes_still_make_a_table(tmp_path: Path) -> None:
    store = Store(tmp_path / "votes.db")
    store.set_test(simulated.paper_test(2, 3))
    export.write(store, tmp_path)
    assert export.read(tmp_path / "preferences.parquet").empty
    pd.testing.assert_frame_equal(
        export.read(tmp_path / "preferences.jsonl"), export.read(tmp_path / "preferences.parquet")
    )


def test_what_is_no_table_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": 3}\n')
    with pytest.raises(LabError, match="no preference table"):
        export.read(tmp_path / "a.jsonl")
    with pytest.raises(LabError, match="does not exist"):
        export.read(tmp_path / "b.parquet")


@pytest.mark.filterwarnings("ignore")
def test_trl_takes_a_dpo_step_on_the_export(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    export.write(store, tmp_path)
    loaded = {
        kind: datasets.load_dataset(
            kind, data_files=str(tmp_path / f"preferences.{ending}"), split="train", cache_dir=str(tmp_path)
        )
        for kind, ending in (("parquet", "parquet"), ("json", "jsonl"))
    }
    assert loaded["parquet"].to_list() == loaded["json"].to_list() == export_rows(store)
    rows = loaded["json"].select_columns(["prompt", "chosen", "rejected"]).select(range(4))
    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"<|s_{i}|>": 3 + i for i in range(7)}}
    words |= {w: len(words) + i for i, w in enumerate(sorted({w for r in rows for w in r["prompt"].split()}))}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    plain.add_tokens([f"<|s_{i}|>" for i in range(7)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    chosen_ids = tokenizer(rows[0]["chosen"])["input_ids"]
    assert [i - 3 for i in chosen_ids] == list(loaded["json"][0]["chosen_tokens"]), "a symbol a token"
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer) + 8, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    settings = trl.DPOConfig(
        output_dir=str(tmp_path / "dpo"), max_steps=1, per_device_train_batch_size=4, learning_rate=0.1,
        report_to=[], use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    reference = copy.deepcopy(model)
    trainer = trl.DPOTrainer(model, reference, settings, train_dataset=rows, processing_class=tokenizer)
    loss = trainer.train().training_loss
    assert loss == pytest.approx(0.6931, abs=1e-3), "ln 2: policy and reference agree at first"
    assert any(not value.equal(before[name]) for name, value in model.named_parameters())


def export_rows(store: Store) -> list[dict[str, object]]:
    table = export.preferences(store)
    for name in ("chosen_tokens", "rejected_tokens", "style"):
        table[name] = [list(map(int, ids)) for ids in table[name]]
    return table.to_dict("records")


def test_who_recorded_is_not_named_either(tmp_path: Path) -> None:
    store = Store(tmp_path / "votes.db")
    store.set_test(simulated.paper_test(2, 3))
    store.note_recording({"sha256": "0" * 64, "speaker": "Asha Juma", "seconds": 1.0, "consent": "yes"})
    export.write(store, tmp_path)
    said = (tmp_path / "events.jsonl").read_text()
    assert "Asha" not in said
    assert "0" * 64 in said


def test_a_sentence_is_in_one_split_however_it_is_written() -> None:
    for i in range(40):
        spelt = (f"Mama anapika {i}", f"mama anapika, {i}!", f"MAMA ANAPIKA {i}.")
        assert len({export.split_of(text) for text in spelt}) == 1

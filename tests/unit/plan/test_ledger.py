"""Which ledger entries count, whatever somebody did to the store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.statements import LedgerEntry, chain_digest, ledger_payload
from controller.plan.ledger import Problem, Verified, read_chain

NAME, ENVIRONMENT = "bikes", "production"
STORY = [
    ("Admitted", "bikes-a", ""),
    ("Promoted", "bikes-a", "bikes-a"),
    ("Rejected", "bikes-b", "bikes-a"),
    ("Admitted", "bikes-c", "bikes-a"),
    ("Promoted", "bikes-c", "bikes-c"),
    ("RolledBack", "bikes-c", "bikes-a"),
    ("Admitted", "bikes-d", "bikes-a"),
]


def chain(story=STORY, **fields):
    """Write a chain as the controller does."""
    payloads: list[bytes] = []
    for seq, (kind, revision, champion) in enumerate(story, start=1):
        entry = LedgerEntry.model_validate(
            {
                "name": NAME,
                "environment": ENVIRONMENT,
                "seq": seq,
                "prev": chain_digest(payloads[-1]) if payloads else "",
                "kind": kind,
                "revision": revision,
                "champion": champion,
                "at": "2026-11-25T02:00:00Z",
                **fields,
            }
        )
        payloads.append(ledger_payload(entry))
    return [Verified(p) for p in payloads]


def read(entries, **known):
    return read_chain(entries, name=NAME, environment=ENVIRONMENT, **known)


def seqs(ledger):
    return [e.seq for e in ledger.entries]


def test_a_whole_ledger_says_who_is_champion_and_what_was_decided():
    ledger = read(chain())
    assert ledger.problems == ()
    assert seqs(ledger) == [1, 2, 3, 4, 5, 6, 7]
    assert ledger.champion is not None
    assert (ledger.champion.kind, ledger.champion.champion) == ("RolledBack", "bikes-a")
    assert sorted(ledger.admitted) == ["bikes-a", "bikes-c", "bikes-d"]
    assert sorted(ledger.rejected) == ["bikes-b"]
    assert ledger.promoted == {"bikes-a", "bikes-c"}
    assert ledger.next_seq == 8
    assert ledger.head == chain_digest(chain()[-1].payload)
    newest = ledger.newest("bikes-c")
    assert newest is not None
    assert newest.seq == 5


def test_an_empty_ledger_starts_with_number_one():
    ledger = read([])
    assert (ledger.champion, ledger.next_seq, ledger.head, ledger.problems) == (None, 1, "", ())


@pytest.mark.parametrize("length", range(len(STORY)))
def test_every_beginning_of_a_ledger_is_a_ledger(length):
    ledger = read(chain()[:length])
    assert (len(ledger.entries), ledger.next_seq, ledger.problems) == (length, length + 1, ())


def test_a_forged_promotion_changes_nothing_and_its_place_is_not_used_again():
    ledger = read([*chain(), Problem("signed by 1234, which is not among the 1 trusted keys")])
    assert ledger.champion is not None
    assert ledger.champion.champion == "bikes-a"
    assert ledger.problems == (
        "Ledger entry 8 is ignored: signed by 1234, which is not among the 1 trusted keys.",
    )
    assert (ledger.next_seq, ledger.ignored) == (9, 1)


def test_the_entry_after_a_forged_one_counts():
    forged = [*chain(), Problem("forged")]
    ledger = read(forged)
    entry = ledger.entries[-1].model_copy(
        update={"seq": ledger.next_seq, "prev": ledger.head, "kind": "Promoted", "champion": "bikes-d"}
    )
    after = read([*forged, Verified(ledger_payload(entry))])
    assert after.champion is not None
    assert after.champion.champion == "bikes-d"
    assert len(after.problems) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "cars"}, "it belongs to cars in production, not to bikes in production"),
        ({"environment": "staging"}, "it belongs to bikes in staging, not to bikes in production"),
    ],
    ids=["of another model", "of another environment"],
)
def test_a_true_entry_of_elsewhere_does_not_count(fields, message):
    ledger = read(chain(**fields))
    assert ledger.champion is None
    assert message in ledger.problems[0]


def test_an_old_entry_put_again_at_the_end_does_not_count():
    entries = chain()
    ledger = read([*entries, entries[4]])
    assert ledger.champion is not None
    assert ledger.champion.champion == "bikes-a"
    assert ledger.problems == ("Ledger entry 8 is ignored: it is number 5, which came before.",)


def test_exchanged_entries_do_not_count_and_are_named():
    entries = chain()
    entries[4], entries[5] = entries[5], entries[4]
    ledger = read(entries)
    assert "Ledger entry 5 is ignored: it says that it is number 6." in ledger.problems
    assert 5 not in seqs(ledger)


def test_a_fork_does_not_count():
    other = chain(
        [("Admitted", "bikes-x", ""), ("Promoted", "bikes-x", "bikes-x"), ("Admitted", "bikes-y", "bikes-x")]
    )
    ledger = read([chain()[0], other[1], other[2]])
    assert seqs(ledger) == [1]
    assert ledger.champion is None
    assert ledger.problems == (
        "Ledger entry 2 is ignored: it does not follow entry 1.",
        "Ledger entry 3 is ignored: it does not follow entry 1.",
    )


def test_a_damaged_entry_takes_back_no_later_decision():
    entries = [*chain()]
    damaged = [*entries[:2], Problem("not a signed envelope: it is not JSON"), *entries[3:]]
    ledger = read(damaged)
    assert seqs(ledger) == [1, 2, 4, 5, 6, 7]
    assert ledger.champion is not None
    assert ledger.champion.champion == "bikes-a"
    assert ledger.problems == (
        "Ledger entry 3 is ignored: not a signed envelope: it is not JSON.",
        "Ledger entry 3 is missing: entry 4 follows one that cannot be read.",
    )


def test_a_lost_rollback_does_not_bring_the_bad_model_back():
    entries = [*chain()]
    ledger = read([*entries[:5], Problem("its file is gone"), entries[6]])
    assert ledger.champion is not None
    assert ledger.champion.champion == "bikes-a"


def test_a_truncated_ledger_is_noticed_by_who_has_seen_more():
    ledger = read(chain()[:4], known=7)
    assert ledger.problems == ("The ledger has 4 valid entries, and had 7: entries were removed or changed.",)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"{}", "not a ledger entry: name: Field required"),
        (b"not json", "not a ledger entry: entry: Invalid JSON"),
        (
            ledger_payload(
                LedgerEntry(name=NAME, environment=ENVIRONMENT, seq=1, kind="Promoted", revision="r", at="x")
            ).replace(b'"v":1', b'"v":2'),
            "not a ledger entry: v: Input should be 1",
        ),
    ],
    ids=["empty", "no JSON", "of a later version"],
)
def test_what_cannot_be_read_is_reported(payload, message):
    ledger = read([Verified(payload)])
    assert ledger.entries == ()
    assert message in ledger.problems[0]


def test_an_entry_is_written_in_one_way_and_later_fields_are_dropped():
    payload = chain()[0].payload
    assert payload == ledger_payload(LedgerEntry.model_validate_json(payload))
    later = LedgerEntry.model_validate_json(payload[:-1] + b',"approver":"jane"}')
    assert ledger_payload(later) == payload


@given(data=st.data())
def test_whatever_is_done_to_the_store_only_true_entries_count(data):
    true = chain()
    stored = data.draw(
        st.lists(st.sampled_from([*true, *chain(environment="staging"), Problem("gone")]), max_size=12)
    )
    ledger = read(stored)
    assert {ledger_payload(e) for e in ledger.entries} <= {e.payload for e in true}
    assert seqs(ledger) == sorted(set(seqs(ledger)))
    assert ledger.next_seq == len(stored) + 1
    assert ledger.ignored == len(stored) - len(ledger.entries)
    if ledger.ignored:
        assert ledger.problems

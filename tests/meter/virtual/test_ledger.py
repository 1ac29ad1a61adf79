"""The ledger: whole lines, appended."""

from pathlib import Path

from meterway.meter.virtual.ledger import Ledger, LedgerLine, read_ledger

LINE = LedgerLine("m", "whole", 1.5, protocol="sml", n=1, values={"1-0:1.8.0*255": "1.0"})


def test_lines_are_appended_run_after_run(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        with Ledger(path) as ledger:
            ledger.add(LINE)
    assert list(read_ledger(path)) == [LINE, LINE]


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.add(LINE)
    path.write_bytes(path.read_bytes() + b'{"meter_id":"m","sta')
    assert list(read_ledger(path)) == [LINE]


def test_many_lines_do_not_wait_for_the_end_of_the_batch(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        for _ in range(2000):
            ledger.add(LINE)
        assert len(list(read_ledger(path))) >= 1500


def test_without_a_file_nothing_is_kept() -> None:
    with Ledger(None) as ledger:
        ledger.add(LINE)
        assert ledger._lines == []

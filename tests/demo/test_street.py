"""``meterway demo`` as it comes: a street of a virtual town, over many protocols, counted end to end."""

import json
import signal
import tomllib
from pathlib import Path

from meterway.meter.virtual.ledger import read_ledger
from support.platform import Api, running, wait_for


def test_a_street_is_read_over_many_protocols_and_nothing_is_missing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    note = data_dir / "demo.json"
    arguments = ("--json", "--speed", "20", "--data-dir", str(data_dir))
    for number in ("first", "second"):
        note.unlink(missing_ok=True)
        with running(tmp_path, number, "demo", *arguments) as process:
            wait_for(note.exists, f"the {number} demo runs")
            api = Api(json.loads(note.read_text())["page"])
            meters = set(json.loads(note.read_text())["meters"])
            before = len(api.all_readings())

            def heard(api: Api = api, meters: set[str] = meters) -> bool:
                return meters <= {reading["meterId"] for reading in api.all_readings()}

            wait_for(heard, "every meter has a reading, also those that are asked and those behind others")
            wait_for(lambda: len(api.all_readings()) > before + 50, "new readings are stored")  # noqa: B023 - called here
            process.signal(signal.SIGINT)
            assert process.wait() == 0, process.err
            counted = json.loads(process.out)
        assert (counted["missing"], counted["duplicated"], counted["quarantined"]) == (0, 0, 0)
        assert counted["stored"] == counted["published"] >= counted["telegrams"] > 50
    written = tomllib.loads((data_dir / "town" / "adapter.toml").read_text())
    assert 8 <= len(meters) <= 20
    assert len({meter["family"].partition("-")[0] for meter in written["meters"]}) >= 4
    assert {line.state for line in read_ledger(data_dir / "ledger-town.jsonl")} == {"whole", "joined", "left"}

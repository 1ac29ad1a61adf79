from meterway.bus.allowance import BURST_S, LIMIT_USERS, Allowance
from meterway.bus.refusals import AGAIN_AFTER_S, LIMIT_REMEMBERED, Refusal, Refusals, parse_mosquitto, parse_nats

HEAD = "[31585] 2026/11/23 18:15:39.872158 [ERR] 127.0.0.1:45443 - mid:31 - "


def test_nats_names_client_and_topic() -> None:
    found = parse_nats(HEAD + '"m1:x" - Publish Violation - Subject "smartMeterMessage.m2.a//b"')
    assert found == Refusal(kind="publish", username=None, client_id="m1:x", topic="smartMeterMessage/m2/a.b")
    assert found.device == "m1"
    found = parse_nats(HEAD + '"m1:x" - Subscription Violation - User "u", Subject "receipt.>", SID receipt.>')
    assert found == Refusal(kind="subscribe", username="u", client_id="m1:x", topic="receipt/#")


def test_client_id_that_looks_like_a_log_line_names_nobody_else() -> None:
    injected = r'"x\" - Publish Violation - Subject \"smartMeterMessage.m2" - authentication error - User "bad"'
    found = parse_nats(HEAD + injected)
    assert found is not None
    assert (found.kind, found.username) == ("login", "bad")


def test_other_lines_are_no_refusal() -> None:
    for line in ("", "[1] [INF] Server is ready", HEAD + '"m1" - Stale Client', "x" * 10_000):
        assert parse_nats(line) is None
        assert parse_mosquitto(line) is None


def test_mosquitto_names_client_and_topic() -> None:
    line = "1795457933: Denied PUBLISH from m1:x (d0, q1, r0, m1, 'smartMeterMessage/m2/readings', ... (7 bytes))"
    expected = Refusal(kind="publish", username=None, client_id="m1:x", topic="smartMeterMessage/m2/readings")
    assert parse_mosquitto(line) == expected


def test_the_same_refusal_is_passed_on_once_a_minute_with_its_count() -> None:
    now_s, passed = [0.0], list[Refusal]()
    refusals = Refusals(passed.append, lambda: now_s[0])
    refused = Refusal(kind="publish", username="a", client_id="a:1", topic="t")
    for _ in range(100):
        refusals.put(refused)
    assert [each.count for each in passed] == [1]
    now_s[0] += AGAIN_AFTER_S
    refusals.put(refused)
    assert [each.count for each in passed] == [1, 100]
    for number in range(LIMIT_REMEMBERED + 10):
        refusals.put(Refusal(kind="publish", username=f"u{number}", client_id="", topic="t"))
    assert len(refusals._said) == LIMIT_REMEMBERED


def test_allowance_ends_a_flood_and_grows_again() -> None:
    allowance = Allowance()
    assert allowance.spend("a", 10.0, int(10 * BURST_S), 0, 0.0), "a full bucket may be spent at once"
    assert allowance.wait_s("a", 10.0, 0.0) == 0
    assert not allowance.spend("a", 10.0, 1, 0, 0.0)
    assert allowance.wait_s("a", 10.0, 0.0) > 0
    assert allowance.wait_s("a", 10.0, BURST_S) == 0
    assert allowance.spend("b", 10.0, 1, 0, 0.0), "others do not pay for it"


def test_long_messages_cost_more() -> None:
    assert not Allowance().spend("a", 10.0, 10, 10 << 20, 0.0)


def test_allowance_is_bounded() -> None:
    allowance = Allowance()
    for number in range(LIMIT_USERS + 5):
        allowance.spend(str(number), 1.0, 1, 0, 0.0)
    assert len(allowance._left) == LIMIT_USERS

"""The pytest plugin: knows the marker, lists the guarantees, and sums up which ones an adapter has kept."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--guarantees` prints the table at the end."""
    parser.getgroup("killswitch").addoption(
        "--guarantees", action="store_true", help="print which guarantees of venue adapters were kept, per adapter"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "guarantee(number): which guarantee of a venue adapter a test is about")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def] # a hook wrapper yields pytest's own
    """Keep the number of a test with its report, so that it survives being run in another process."""
    report = (yield).get_result()
    marker = item.get_closest_marker("guarantee")
    if marker is not None:
        owner = item.getparent(pytest.Class)
        report.user_properties.append(("guarantee", f"{owner.name if owner else ''} {marker.args[0]}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for each adapter: kept, broken, not tried."""
    if not config.getoption("--guarantees"):
        return
    table: dict[str, dict[str, str]] = {}
    for outcome, word in (("passed", "kept"), ("skipped", "not tried"), ("failed", "BROKEN"), ("error", "BROKEN")):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == "guarantee":
                    adapter, _, number = value.rpartition(" ")
                    table.setdefault(adapter, {})[number] = word
    terminalreporter.section("guarantees of venue adapters")
    for adapter, numbers in sorted(table.items()):
        for word in ("kept", "not tried", "BROKEN"):
            found = sorted(number for number, said in numbers.items() if said == word)
            if found:
                terminalreporter.write_line(f"{adapter}: {word}: {' '.join(found)}")

"""The pytest plugin: registers the marker, and prints which guarantees each adapter has kept."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--guarantees`, which prints the table at the end."""
    parser.getgroup("killswitch").addoption(
        "--guarantees", action="store_true", help="print which guarantees of venue adapters were kept, per adapter"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "guarantee(number): which guarantee of a venue adapter a test is about")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def] # a hook wrapper yields pytest's own
    """Store the number of the guarantee in the report, so that it survives a run in another process."""
    report = (yield).get_result()
    marker = item.get_closest_marker("guarantee")
    if marker is not None:
        owner = item.getparent(pytest.Class)
        report.user_properties.append(("guarantee", f"{owner.name if owner else ''} {marker.args[0]}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the guarantees of each adapter: kept, not tried, broken."""
    if not config.getoption("--guarantees"):
        return
    table: dict[str, dict[str, str]] = {}
    for outcome, label in (("passed", "kept"), ("skipped", "not tried"), ("failed", "BROKEN"), ("error", "BROKEN")):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == "guarantee":
                    adapter, _, number = value.rpartition(" ")
                    table.setdefault(adapter, {})[number] = label
    terminalreporter.section("guarantees of venue adapters")
    for adapter, numbers in sorted(table.items()):
        for label in ("kept", "not tried", "BROKEN"):
            found = sorted(number for number, status in numbers.items() if status == label)
            if found:
                terminalreporter.write_line(f"{adapter}: {label}: {' '.join(found)}")

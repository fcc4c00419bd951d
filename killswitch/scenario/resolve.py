"""Resolves scenario documents: series, times and names, and every mistake in them with its place.

A misspelt policy, stage, trigger, scope or route would make an expectation that nothing can contradict; each is an
error here, before anything runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from killswitch.graph.nodes import Graph, PolicySet, SignalRef
from killswitch.graph.problems import Findings, unknown_name
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Event
from killswitch.planning.routing.tree import ROOT
from killswitch.planning.scopes.compiled_policy import Identity, scopes_of
from killswitch.policy.diagnostics.diagnostic import Diagnostic, in_order
from killswitch.policy.loader import Document
from killswitch.policy.schema.scenario import SUBJECTS, ScenarioDocument, ScenarioExpectation
from killswitch.policy.yaml.source_map import Path as YamlPath
from killswitch.scenario.account_series import account_series
from killswitch.scenario.book import ContradictionError, require_consistent
from killswitch.scenario.cases import AccountSeries, Expectation, Outage, Scenario, Steps, Subject, stops_text
from killswitch.scenario.given_signals import GivenSeries, GivenValue, nearest_signal, parse_given, signal_named
from killswitch.scenario.heard import hearings, listened_switch
from killswitch.signals.arguments import span

LAST = datetime(2500, 1, 1, tzinfo=UTC)
"""Before it every scenario ends."""
NONE = "none"
"""What an expectation calls the absence of a stage or a lock."""


def resolve(documents: Iterable[Document], policies: PolicySet) -> tuple[tuple[Scenario, ...], tuple[Diagnostic, ...]]:
    """The scenarios among the documents, by name, and every problem; a scenario with an error is left out."""
    found: list[Scenario] = []
    problems: list[Diagnostic] = []
    for document in documents:
        if isinstance(document.model, ScenarioDocument):
            resolver = _Resolver(document.model, document, policies)
            scenario = resolver.scenario()
            problems += resolver.found.diagnostics
            found += [] if scenario is None else [scenario]
    return tuple(sorted(found, key=lambda each: each.name)), in_order(problems)


class _Resolver:
    """Resolves one document. Problems are collected in `found`."""

    def __init__(self, document: ScenarioDocument, loaded: Document, policies: PolicySet) -> None:
        self.found = Findings(loaded.source)
        self._name = document.metadata.name
        self._spec = document.spec
        self._policies = policies
        self._graphs: dict[str, Graph] = {}
        self._clock = Steps(0, self._spec.every or 0)
        self._identities: list[Identity] = []

    def scenario(self) -> Scenario | None:
        """The scenario; None if anything is wrong with it."""
        spec = self._spec
        known = {graph.policy: graph for graph in self._policies.graphs}
        for number, name in enumerate(spec.policies):
            if name in known:
                self._graphs[name] = known[name]
            else:
                message, fix = unknown_name("policy", name, known)
                self.found.error("KS7020", ("spec", "policies", number), message, fix)
        accounts: tuple[AccountSeries, ...] = ()
        signals: dict[SignalRef, list[GivenValue]] = {}
        recording: str | None = None
        if spec.recording is not None:
            recording = self._recording(spec.recording)
        else:
            given = self._given()
            paths = dict(given.values())
            accounts, self._clock = account_series(spec, paths, self.found)
            if not self.found.diagnostics:
                signals = {ref: series.values(self._clock.count) for ref, (_, series) in given.items()}
            self._require_an_end()
            self._identities = [(it.name, it.venue, it.market, it.currency) for it in accounts]
        is_readable = not self.found.diagnostics  # steps and scopes are known only then
        outages = self._outages() if is_readable else ()
        events = self._events(outages) if is_readable else {}
        heard = hearings(spec.heard or {}, self._policies.silences, self.found) if is_readable else {}
        expectations = self._expectations(outages) if is_readable else ()
        pushes = [self._step(at, ("spec", "pushes", n)) for n, at in enumerate(spec.pushes)] if is_readable else ()
        if self.found.diagnostics:
            return None
        starts = spec.starts or datetime(1970, 1, 1, tzinfo=UTC)  # that of a recording is its first snapshot's
        place = self.found.place(("metadata", "name"))
        resolved = Scenario(
            self._name, place, spec.policies, starts, self._clock, accounts, events, outages, expectations,
            recording, spec.pending, spec.notices, frozenset(each for each in pushes if each is not None), signals,
            heard,
        )  # fmt: skip
        return resolved if recording is not None or self._is_consistent(resolved) else None

    def _given(self) -> dict[SignalRef, tuple[YamlPath, GivenSeries]]:
        """The series of signals by the signals, each with its path; what is wrong with them is reported."""
        known = tuple(dict.fromkeys(each for graph in self._graphs.values() for each in graph.signals))
        found: dict[SignalRef, tuple[YamlPath, GivenSeries]] = {}
        for written, text in (self._spec.signals or {}).items():
            path: YamlPath = ("spec", "signals", written)
            signal = signal_named(written, known)
            if signal is None:
                message = f"no policy of this scenario reads `{written}`"
                self.found.error("KS7020", path, message, nearest_signal(written, known), key=True)
            elif signal in found:
                self.found.error("KS7014", path, f"`{written}` is written twice", "remove one of the two", key=True)
            else:
                series = parse_given(text, signal)
                self.found.within(path, series.problems)
                found[signal] = path, series
        return found

    def _require_an_end(self) -> None:
        """Report a scenario that ends beyond the calendar that the engine computes with."""
        starts, clock = self._spec.starts, self._clock
        if starts is not None and clock.count and to_micros(starts) + clock.last >= to_micros(LAST):
            of = "times" if clock.times else "every"
            message = f"its {clock.count} steps end after the year {LAST.year}"
            self.found.error("KS7011", ("spec", of), message, "write a shorter time, or shorter series")

    def _recording(self, written: str) -> str | None:
        path = Path(self.found.source.file).parent / written
        if path.is_file():
            return str(path)
        message = f"there is no recording {path}"
        self.found.error("KS7021", ("spec", "recording"), message, "correct the path; it is relative to this file")
        return None

    def _is_consistent(self, scenario: Scenario) -> bool:
        """Whether its series fit together at every step."""
        try:
            require_consistent(scenario)
        except ContradictionError as error:
            at = ("spec", "accounts", error.account)
            when = span(self._clock.at(error.step))
            self.found.error("KS7012", at, f"after {when}: {error.text}", error.fix, key=True)
            return False
        return True

    # Times

    def _step(self, at: int, path: YamlPath, outages: Sequence[Outage] = ()) -> int | None:
        """The step at a time after the start (microseconds); None, with an error, if there is none."""
        clock = self._clock
        if not clock.count:
            return 0  # the steps of a recording are not known yet
        step = clock.step(at)
        if step is None and at > clock.last:
            message = "the scenario has ended by then"
            self.found.error("KS7011", path, message, f"write at most {span(clock.last)}, or longer series")
            return None
        if step is None:
            before, after = clock.around(at)
            message = f"{span(at)} is between two steps"
            self.found.error("KS7011", path, message, f"write {span(before)} or {span(after)}")
            return None
        silent = next((each for each in outages if each.last < step < each.first), None)
        if silent is not None:
            until = span(clock.at(silent.first))
            self.found.error("KS7011", path, "the runner is down at this step", f"write {until} or later")
            return None
        return step

    def _outages(self) -> tuple[Outage, ...]:
        found: list[Outage] = []
        every = self._spec.every or 1
        for number, each in enumerate(self._spec.restarts):
            path: YamlPath = ("spec", "restarts", number)
            last = self._step(each.at, (*path, "at"))
            if last is None:
                continue
            if each.outage % every:
                fix = "write a multiple of `every`"
                self.found.error("KS7011", (*path, "outage"), "the outage ends between two steps", fix)
                continue
            outage = Outage(last, max(last + each.outage // every, last + 1))
            if outage.first >= self._clock.count:
                fix = "write a shorter outage, or longer series"
                self.found.error("KS7011", (*path, "outage"), "the scenario ends during the outage", fix)
            elif found and outage.last < found[-1].first:
                fix = "write the restarts in their order, each after the outage before it"
                self.found.error("KS7013", (*path, "at"), "it begins during the outage before it", fix)
            else:
                found.append(outage)
        return tuple(found)

    # Events

    def _events(self, outages: Sequence[Outage]) -> dict[int, tuple[Event, ...]]:
        found: dict[int, tuple[Event, ...]] = {}
        starts = self._spec.starts
        for number, each in enumerate(self._spec.events):
            if starts is None:
                fix = "remove it: a recording has its own commands"
                self.found.error("KS7003", ("spec", "events", number), "`events` next to a recording", fix)
                continue
            step = self._step(each.at, ("spec", "events", number, "at"), outages)
            if step is None:
                continue
            fields: dict[str, Any] = {"author": each.author, "reason": each.reason, "cause": each.cause}
            fields |= {"force": each.force, "lock": each.lock, "flag": each.flag, "is_set": each.set}
            until = None if each.until is None else starts + timedelta(microseconds=each.until)
            at = starts + timedelta(microseconds=each.at)
            event = Event(f"{self._name}-e{number}", at, each.kind, each.scope, until=until, **fields)
            found[step] = (*found.get(step, ()), event)
        return found

    # Expectations

    def _expectations(self, outages: Sequence[Outage]) -> tuple[Expectation, ...]:
        found: list[Expectation] = []
        places: dict[object, int] = {}
        for number, each in enumerate(self._spec.expect):
            path: YamlPath = ("spec", "expect", number)
            before = len(self.found.diagnostics)
            self._step(each.at, (*path, "at"), outages)
            expectation = self._expectation(each, path)
            if expectation is None or len(self.found.diagnostics) > before:
                continue
            identity = _identity(expectation)
            if identity in places:
                line = self.found.place(("spec", "expect", places[identity])).line
                message = f"line {line} already says what is expected of this at this step"
                self.found.error("KS7014", path, message, "remove one of the two")
            places[identity] = number
            found.append(expectation)
        return tuple(found)

    def _expectation(self, each: ScenarioExpectation, path: YamlPath) -> Expectation | None:
        subject = _subject(each)
        if each.switch is not None:
            return self._of_switch(each, each.switch, path)
        key = subject if subject not in OF_SCOPE else None
        name = stops_text(each.stops) if each.stops is not None else str(getattr(each, subject))
        needs_policy = subject in ("fires", "resets", "in_force", "trigger")
        policy = self._policy(each, path, needs_policy=needs_policy)
        if needs_policy and policy is None:
            return None
        if policy is not None and key is not None:
            self._name_exists(self._graphs[policy], subject, name, (*path, subject))
        scope = self._scope(each, policy, path, needs_scope=needs_policy or subject in OF_SCOPE)
        for number, route in enumerate(each.notifies or ()):
            routes = [it.name for it in self._policies.routes]
            routes += [] if self._policies.notification is None else [ROOT]
            if route not in routes:
                message, fix = unknown_name("route", route, routes)
                self.found.error("KS7020", (*path, "notifies", number), message, fix)
        if scope is None:
            return None
        return Expectation(
            timedelta(microseconds=each.at), subject, policy or "", scope, name, self.found.place(path), each.is_,
            each.lock, each.lock_of, each.orders, each.cancels, each.source, each.notifies or (), each.reason,
            each.text,
        )  # fmt: skip

    def _of_switch(self, each: ScenarioExpectation, name: str, path: YamlPath) -> Expectation | None:
        if listened_switch(name, self._policies.silences, (*path, "switch"), self.found) is None:
            return None
        at = timedelta(microseconds=each.at)
        return Expectation(at, "switch", "", "", name, self.found.place(path), each.phase)

    def _policy(self, each: ScenarioExpectation, path: YamlPath, *, needs_policy: bool) -> str | None:
        if each.policy is not None:
            if each.policy in self._graphs:
                return each.policy
            message, fix = unknown_name("policy", each.policy, self._graphs)
            self.found.error("KS7020", (*path, "policy"), message, f"{fix}; it has to be among `policies`")
        elif needs_policy and len(self._graphs) == 1:
            return next(iter(self._graphs))
        elif needs_policy:
            self.found.error("KS7022", path, "the scenario tests several policies", "add `policy`")
        return None

    def _name_exists(self, graph: Graph, subject: Subject, name: str, path: YamlPath) -> None:
        if subject == "trigger":
            known: Collection[str] = [each.name for each in graph.triggers]
        elif subject in ("fires", "resets", "in_force"):
            known = [each.name for each in graph.stages]
            if subject == "in_force" and name == NONE:
                return
        else:
            return
        if name not in known:
            message, fix = unknown_name("trigger" if subject == "trigger" else "stage", name, known)
            self.found.error("KS7020", path, message, fix)

    def _scope(self, each: ScenarioExpectation, policy: str | None, path: YamlPath, *, needs_scope: bool) -> str | None:
        """The scope of the expectation; empty: any. None, with an error, if it is not known."""
        if self._spec.recording is not None:
            if each.scope is None and needs_scope:
                self.found.error("KS7022", path, "with a recording the scope has to be written", "add `scope`")
                return None
            return each.scope or ""
        scopes = self._scopes([policy] if policy is not None else self._graphs)
        if each.scope is not None:
            if each.scope not in scopes:
                message, fix = unknown_name("scope", each.scope, scopes)
                self.found.error("KS7020", (*path, "scope"), message, fix)
                return None
            return each.scope
        if len(scopes) == 1 or not needs_scope:
            return scopes[0] if len(scopes) == 1 else ""
        message = "there are several scopes" if scopes else "no account of the scenario is in the policy's scope"
        fix = f"add `scope`, one of {', '.join(scopes)}" if scopes else "add an account that the policy watches"
        self.found.error("KS7022", path, message, fix)
        return None

    def _scopes(self, policies: Iterable[str]) -> list[str]:
        symbols = {it.symbol for each in (self._spec.accounts or {}).values() for it in each.positions or ()}
        found = (scopes_of(self._graphs[each].scope, self._identities, sorted(symbols)) for each in policies)
        return list(dict.fromkeys(scope for scopes in found for scope in scopes))


OF_SCOPE: Final = ("lock_in_force", "stops", "may_open")
"""Subjects that are about a scope, whatever the policy."""


def _subject(each: ScenarioExpectation) -> Subject:
    """The key that says what the expectation is about; the document has exactly one."""
    for subject in SUBJECTS:
        if getattr(each, subject) is not None:
            return cast(Subject, subject)
    raise ValueError("an expectation about nothing")


def _identity(each: Expectation) -> object:
    """What two expectations of one step must not both say."""
    if each.subject in ("in_force", *OF_SCOPE):
        return each.at, each.subject, each.policy, each.scope
    if each.subject == "switch":
        return each.at, each.subject, each.name
    if each.subject == "trigger":
        kind = each.truth if each.truth in ("held", "confirmed") else "truth"
        return each.at, each.subject, each.policy, each.scope, each.name, kind
    return each.at, each.subject, each.policy, each.scope, each.name, each.text

"""Repositories agree with plain dictionaries, whatever they lie on: local files, an object store, both registries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from helpers import repo_samples as samples
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule, run_state_machine_as_test

from apstream.errors import Conflict, DatasetNotFound
from apstream.repo.repository import Repository
from apstream.repo.store import open_store
from apstream.repo.upkeep import check_repository

POLICY = """
remark: {template: 'remark/{visit}.txt', format: text}
record: {template: 'record/{visit}/{detector}.yaml', format: yaml}
motto: {template: 'motto/{name}.txt', format: text, shared: true}
report:
  class: types:SimpleNamespace
  disassembler: apstream.repo.assembly:attributes
  components: {remark: remark, record: record, image: {type: calexp, input_only: true, optional: true}}
all_records: {aggregate: record, combine: 'builtins:max'}
"""

visits, detectors = st.integers(1, 2), st.integers(0, 1)
texts = st.sampled_from(["clear", "clouds", "wind", ""])
records = st.sampled_from([{}, {"a": 1}, {"a": 2}, {"a": 1, "b": 0}])
names = st.sampled_from(["north", "south"])


class Against(RuleBasedStateMachine):
    """Random operations on a tree of repositories and on one dictionary per repository."""

    repositories = Bundle("repositories")

    def __init__(self, make: Callable[[], Repository]) -> None:
        super().__init__()
        self._make = make
        self.model: dict[str, dict[Any, Any]] = {}
        self.parents: dict[str, str | None] = {}

    @initialize(target=repositories)
    def begin(self) -> Any:
        repository = self._make()
        self.model[repository.root], self.parents[repository.root] = {}, None
        return multiple(repository)

    def teardown(self) -> None:
        """Each repository holds exactly what was written to it, whole, and no file beside."""
        for root, mine in self.model.items():
            repository = Repository(root)
            own = {
                (kind, *entry.identity.values())
                for kind in ("remark", "record", "motto", "calexp")
                for entry in repository.own.registry.find(kind)
            }
            assert own == set(mine)
            report = check_repository(repository, contents=True)
            assert (report.datasets, report.damaged, report.orphans) == (len(mine), [], [])
            repository.close()

    def expected(self, root: str | None, key: Any) -> Any:
        """What the dictionaries say, nearest first; None for nothing."""
        while root is not None:
            if key in self.model[root]:
                return self.model[root][key]
            root = self.parents[root]
        return None

    def check(self, repository: Repository, key: Any, get: Callable[[], Any]) -> None:
        expected = self.expected(repository.root, key)
        if expected is None:
            with pytest.raises(DatasetNotFound):
                get()
        else:
            assert get() == expected

    @rule(target=repositories, parent=repositories, name=st.sampled_from("pq"))
    def make_rerun(self, parent: Repository, name: str) -> Any:
        child = parent.rerun(name)
        if child.root in self.model:
            return multiple()
        self.model[child.root], self.parents[child.root] = {}, parent.root
        return child

    @rule(target=repositories, repository=repositories)
    def open_again(self, repository: Repository) -> Any:
        return Repository(repository.root)

    @rule(repository=repositories, visit=visits, text=texts)
    def put_remark(self, repository: Repository, visit: int, text: str) -> None:
        repository.put(text, "remark", visit=visit)
        self.model[repository.root]["remark", visit] = text

    @rule(repository=repositories, visit=visits, detector=detectors, record=records)
    def put_record(self, repository: Repository, visit: int, detector: int, record: dict[str, int]) -> None:
        repository.put(record, "record", visit=visit, detector=detector)
        self.model[repository.root]["record", visit, detector] = record

    @rule(repository=repositories, name=names, text=texts)
    def put_shared(self, repository: Repository, name: str, text: str) -> None:
        mine = self.model[repository.root]
        if mine.get(("motto", name), text) != text:
            with pytest.raises(Conflict):
                repository.put(text, "motto", name=name)
        else:
            repository.put(text, "motto", name=name)
            mine["motto", name] = text

    @rule(repository=repositories, visit=visits, detector=detectors, text=texts, record=st.none() | records)
    def put_composite(
        self, repository: Repository, visit: int, detector: int, text: str, record: dict[str, int] | None
    ) -> None:
        from types import SimpleNamespace

        value = SimpleNamespace(remark=text, record=record)
        repository.put(value, "report", visit=visit, detector=detector)
        for key, part in ((("remark", visit), text), (("record", visit, detector), record)):
            if part is not None and self.expected(repository.root, key) != part:
                self.model[repository.root][key] = part

    @rule(repository=repositories, visit=visits, detector=detectors, seed=st.integers(0, 2))
    def put_image(self, repository: Repository, visit: int, detector: int, seed: int) -> None:
        repository.put(samples.calexp(seed), "calexp", visit=visit, detector=detector)
        self.model[repository.root]["calexp", visit, detector] = samples.calib(seed)

    @rule(repository=repositories, visit=visits, detector=detectors)
    def read_component(self, repository: Repository, visit: int, detector: int) -> None:
        key = ("calexp", visit, detector)
        self.check(repository, key, lambda: repository.get("calexp_calib", visit=visit, detector=detector))

    @rule(repository=repositories, visit=visits, detector=detectors)
    def read_composite(self, repository: Repository, visit: int, detector: int) -> None:
        keys = [("remark", visit), ("record", visit, detector)]
        expected = [self.expected(repository.root, key) for key in keys]
        if None in expected:
            with pytest.raises(DatasetNotFound, match="report lacks its component"):
                repository.get("report", visit=visit, detector=detector)
            return
        report = repository.get("report", visit=visit, detector=detector)
        assert [report.remark, report.record] == expected
        image = self.expected(repository.root, ("calexp", visit, detector))
        assert (None if report.image is None else report.image.photo_calib) == image

    @rule(repository=repositories, visit=visits)
    def read_and_locate(self, repository: Repository, visit: int) -> None:
        self.check(repository, ("remark", visit), lambda: repository.get("remark", visit=visit))
        found = repository.locate("remark", visit=visit)
        assert (found is None) == (self.expected(repository.root, ("remark", visit)) is None)

    @rule(repository=repositories, name=names)
    def read_shared(self, repository: Repository, name: str) -> None:
        self.check(repository, ("motto", name), lambda: repository.get("motto", name=name))

    @rule(repository=repositories, first=visits, last=visits)
    def select(self, repository: Repository, first: int, last: int) -> None:
        if last < first:
            return
        found = repository.find("record", repository.select([f"visit={first}..{last}"]))
        ids = [(entry.identity["visit"], entry.identity["detector"]) for entry in found]
        expected = {
            (visit, detector)
            for visit in range(first, last + 1)
            for detector in (0, 1)
            if self.expected(repository.root, ("record", visit, detector)) is not None
        }
        assert len(ids) == len(expected)
        assert set(ids) == expected
        assert [repository.get_entry(entry) for entry in found] == [
            self.expected(repository.root, ("record", *id)) for id in ids
        ]


@pytest.fixture(params=["files", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes roots of new repositories."""
    base = str(tmp_path) if request.param == "files" else request.getfixturevalue("s3_url")
    count = iter(range(1_000_000))
    return lambda: f"{base}/r{next(count)}"


@pytest.fixture(params=["sqlite", "postgres"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/shared.sqlite3"


@pytest.mark.postgres
def test_random_operations_agree_with_dictionaries(place: Callable[[], str], registry: str) -> None:
    examples = 40 if registry.startswith("sqlite") and "://" not in place() else 12

    def make() -> Repository:
        root = place()
        open_store(root).write_text("policy.yaml", POLICY, exclusive=True)
        return Repository.create(root, camera="simcam", registry=registry)

    run_state_machine_as_test(
        lambda: Against(make),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )

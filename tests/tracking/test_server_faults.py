"""A server that does what it is asked and whose answer is lost: each run and each model is there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlrun.tracking.mlflow.client import ClientBackend
from dlrun.tracking.mlflow.diagnosis import is_of_store
from dlrun.tracking.mlflow.model import find_or_make
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.store import prepare

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TAGS = {"dlrun.id": 'it\'s "x"', "mlflow.runName": "a"}


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[ClientBackend]:
    address = Address(f"sqlite:///{tmp_path}/mlflow.db")
    prepare(address, tmp_path / "artifacts")
    yield ClientBackend(address)


def states(backend: ClientBackend, experiment: str) -> dict[str, str]:
    from mlflow.entities import ViewType

    found = backend._client.search_runs([experiment], run_view_type=ViewType.ALL)
    return {run.info.run_id: run.info.lifecycle_stage for run in found}


def test_what_a_lost_answer_left_is_found_and_its_doubles_are_deleted(backend: ClientBackend, tmp_path: Path) -> None:
    experiment = backend.experiment("a study", tmp_path / "artifacts")
    first, second, third = (backend.create(experiment, start=n, tags=TAGS).run_id for n in (1, 3, 2))
    backend.log(first, [], [("lr", "0.1")], [("dlrun.progress", "80")])
    other = backend.create(experiment, start=4, tags=TAGS | {"dlrun.id": "it_s _x_"}).run_id
    found = backend.find(experiment, TAGS["dlrun.id"])
    assert found and found.run_id == first
    assert states(backend, experiment) == {first: "active", second: "deleted", third: "deleted", other: "active"}
    assert "dlrun.id" not in backend.tags(second), "nobody takes it for the run later"


def test_a_run_is_asked_for_once(backend: ClientBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    asked: list[int] = []
    create = backend._client.create_run

    def lose(*arguments: Any, **more: Any) -> None:
        asked.append(MLFLOW_HTTP_REQUEST_MAX_RETRIES.get())
        create(*arguments, **more)
        raise TimeoutError

    monkeypatch.setattr(backend._client, "create_run", lose)
    experiment = backend.experiment("a study", tmp_path / "artifacts")
    with pytest.raises(TimeoutError):
        backend.create(experiment, start=1, tags=TAGS)
    assert asked == [0] and MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 5
    assert backend.find(experiment, TAGS["dlrun.id"])


def test_a_model_whose_answer_was_lost_is_found(
    backend: ClientBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = backend._client
    experiment = backend.experiment("a study", tmp_path / "artifacts")
    run_id = backend.create(experiment, start=1, tags=TAGS).run_id
    stored, create = client.get_run(run_id), client.create_logged_model

    def lose(*arguments: Any, **more: Any) -> None:
        create(*arguments, **more)
        raise TimeoutError

    with monkeypatch.context() as losing:
        losing.setattr(client, "create_logged_model", lose)
        with pytest.raises(TimeoutError):
            find_or_make(client, stored, {"dlrun.step": "7"})
    found = find_or_make(client, stored, {"dlrun.step": "7"})
    create(experiment, "model", source_run_id=run_id, tags={"dlrun.step": "7"})
    client.finalize_logged_model(found.model_id, "READY")
    assert find_or_make(client, stored, {"dlrun.step": "7"}).model_id == found.model_id, "the finished one"
    assert [model.model_id for model in client.search_logged_models([experiment])] == [found.model_id]
    assert find_or_make(client, stored, {"dlrun.step": "8"}).model_id != found.model_id, "of other weights"


def test_a_store_that_is_away_is_no_model_that_cannot_be_exported() -> None:
    import requests
    from mlflow.exceptions import MlflowException

    def lost() -> None:
        try:
            raise requests.ConnectionError
        except requests.ConnectionError:
            raise MlflowException("API request failed")  # noqa: B904  as MLflow does

    with pytest.raises(MlflowException) as found:
        lost()
    assert is_of_store(found.value)
    assert is_of_store(MlflowException("failed with error code 401 != 200"))
    assert not is_of_store(MlflowException("the signature is invalid")) and not is_of_store(ValueError("no export"))

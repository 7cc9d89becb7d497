"""What `render` says of an output or a model in trouble, and when it says that it is over."""

import click

from promptmill.verbs.rendering import Troubles


def said_by(*reports: dict[str, str], models: tuple[str, ...] = ()) -> list[str]:
    said: list[str] = []
    troubles = Troubles(said.append)
    for problems in reports:
        troubles.tell(problems)
    troubles.end_of_run(models)
    return said


def test_trouble_is_said_once_and_so_is_its_end() -> None:
    full = {"/out": "No space left on device"}
    told = [click.unstyle(line) for line in said_by(full, full, {}, {})]
    assert told == ["in trouble: /out: No space left on device", "/out works again"]


def test_an_output_that_took_the_last_image_before_the_next_report_works_again() -> None:
    assert said_by({"/out": "No space left on device"})[1:] == ["/out works again"]


def test_a_model_that_did_not_load_does_not_work_again_at_the_end() -> None:
    assert len(said_by({"some/model": "no such model"}, models=("some/model",))) == 1

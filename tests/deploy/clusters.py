"""deploy/kubernetes as a cluster gets it: each overlay rendered by kubectl."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from tests.deploy.programs import ROOT, program, succeeds

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
ONE_HOST = [name for name in OVERLAYS if not name.endswith("-slice")]
"""Whose workers are a Deployment."""

Resource = dict[str, Any]


@cache
def rendered(overlay: str) -> tuple[Resource, ...]:
    """The overlay's resources."""
    kubectl = program("kubectl", "1.27 or later: Debian's own is too old", packaged=False)
    text = succeeds(kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay))
    return tuple(yaml.safe_load_all(text))


def resource(overlay: str, kind: str, name: str) -> Resource:
    """The overlay's one resource of the kind and name."""
    (found,) = [one for one in rendered(overlay) if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def templates(overlay: str) -> Iterator[tuple[str, Resource]]:
    """The pod templates, by the names of what makes pods of them."""
    for one in rendered(overlay):
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["metadata"]["name"], one["spec"]["template"]
        if one["kind"] == "JobSet":
            for job in one["spec"]["replicatedJobs"]:
                yield one["metadata"]["name"], job["template"]["spec"]["template"]


def template(overlay: str, name: str) -> Resource:
    """The pod template of that name."""
    return dict(templates(overlay))[name]


def container(overlay: str, name: str) -> Resource:
    """The one container of the pod template of that name."""
    (only,) = template(overlay, name)["spec"]["containers"]
    return only


def environment(overlay: str, name: str, secrets: dict[str, str]) -> dict[str, str]:
    """The container's variables as the kubelet would set them: config maps, secrets that there are, and $(NAMES)."""
    spec, found = container(overlay, name), dict[str, str]()
    for source in spec.get("envFrom", []):
        found |= resource(overlay, "ConfigMap", source["configMapRef"]["name"])["data"]
    for one in spec.get("env", []):
        if "value" in one:
            found[one["name"]] = expanded(one["value"], found)
        elif (secret := one["valueFrom"]["secretKeyRef"])["name"] in secrets:
            found[one["name"]] = secrets[secret["name"]]
        else:
            assert secret.get("optional"), f"no secret {secret['name']}"
    return found


def expanded(text: str, variables: dict[str, str]) -> str:
    """The text with each $(NAME) that is known."""
    for name, value in variables.items():
        text = text.replace(f"$({name})", value)
    return text


def matches(selector: Resource, labels: dict[str, str]) -> bool:
    """Whether a label selector means these labels."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        one["operator"] == "In" and labels.get(one["key"]) in one["values"]
        for one in selector.get("matchExpressions", [])
    )

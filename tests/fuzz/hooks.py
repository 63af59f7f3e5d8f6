"""What the fuzzer is told of a running system: ids that exist, and addresses that answer. Without them nearly every
request would end at 404 or at a URL that is none."""

import json
import os
import zlib

import schemathesis

KNOWN = json.loads(os.environ["XORA_FUZZ"])


def choice(value, of):
    """A number below `of`, the same for the same value: the generator repeats itself to find the smallest case."""
    return zlib.crc32(repr(value).encode()) % of


@schemathesis.hook
def map_path_parameters(ctx, parameters):
    ids = KNOWN["ids"]
    if parameters and "id" in parameters and (chosen := choice(parameters, 2 * len(ids))) < len(ids):
        return {**parameters, "id": ids[chosen]}
    return parameters


def is_url(value):
    """Whether the description takes this for a URL. What it forbids has to stay forbidden."""
    return isinstance(value, str) and len(value) <= 8192


@schemathesis.hook
def map_body(ctx, body):
    if not isinstance(body, dict) or choice(body, 3) == 0:
        return body
    body = dict(body)
    if isinstance(body.get("input"), dict) and is_url(body["input"].get("url")):
        body["input"] = {**body["input"], "url": KNOWN["input"]}
    for name in ("webhookUrl", "defaultWebhookUrl"):
        if is_url(body.get(name)):
            body[name] = KNOWN["webhook"]
    return body

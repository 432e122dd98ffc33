"""What `helm test` runs, in the gateway's own image: a replica is ready, and the data plane lets nobody in
without a key. Calls nothing that costs anything."""

import json
import os
import urllib.error
import urllib.request


def answer(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


status, body = answer(os.environ["ADMIN_URL"] + "/readyz")
if status != 200:
    raise SystemExit(f"The gateway is not ready: {body}")
status, body = answer(os.environ["DATA_URL"] + "/v1/models")
if status != 401 or body["error"]["type"] != "authentication_error":
    raise SystemExit(f"Without a key, the data plane answers {status}: {body}")
print("The gateway is ready, and asks for a key.")

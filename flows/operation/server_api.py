"""Questions to a Prefect server by plain HTTP, for commands that must not spend four seconds on importing Prefect."""

import base64
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from flows.runtime.prefect_server import PrefectServerFailed

TIMEOUT_S = 10.0

BUSY = 503
"""How Prefect's server refuses what its database had no time for; its own clients ask again, too."""

PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Before it is asked again."""


class _Busy(Exception):
    """The server refused with `BUSY`."""


@dataclass(frozen=True, slots=True)
class ServerApi:
    """A server's address, `http://HOST:PORT/api`, and USER:PASSWORD if it wants them."""

    url: str
    auth: str = ""

    def post(self, path: str, body: Any) -> Any:
        """The answer to a request with a JSON body. Raises `PrefectServerFailed` when there is none, or a refusal."""
        return self._ask(path, json.dumps(body).encode())

    def get(self, path: str) -> Any:
        """The answer to a request without a body. Raises `PrefectServerFailed` as `post` does."""
        return self._ask(path, None)

    def answers(self) -> bool:
        """Whether it is there and healthy."""
        try:
            return bool(self.get("/health"))
        except PrefectServerFailed:
            return False

    def _ask(self, path: str, body: bytes | None) -> Any:
        for pause_s in (*PAUSES_S, None):
            try:
                return self._ask_once(path, body)
            except _Busy as busy:
                if pause_s is None:
                    raise PrefectServerFailed(str(busy)) from None
                time.sleep(pause_s)

    def _ask_once(self, path: str, body: bytes | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.auth:
            headers["Authorization"] = "Basic " + base64.b64encode(self.auth.encode()).decode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers), timeout=TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            remedy = "give it USER:PASSWORD (server.auth_file, PREFECT_API_AUTH_STRING)" if error.code == 401 else "look into its log"
            failure = _Busy if error.code == BUSY else PrefectServerFailed
            raise failure(f"Prefect's server at {self.url} refused {path} with status {error.code}; {remedy}") from None
        except (OSError, ValueError) as error:  # nobody there, or somebody who speaks something else
            raise PrefectServerFailed(f"no Prefect server answers at {self.url} ({error}); start it with `dalle up`") from None

"""One replica as a process: `python -m gateway.server_process CONFIG_AS_JSON`; its first line is its port."""

from __future__ import annotations

import json
import socket
import sys

import uvicorn

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from gateway.graphs import asking_graph, counting_graph
from gateway.serving import by_header


def main() -> None:
    config = AppConfig.from_mapping(json.loads(sys.argv[1]))
    app = create_app(config, {"agent": counting_graph(), "asking": asking_graph()}, authenticate=by_header)
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(app, lifespan="on", ws="none", log_level="error")).run(sockets=[listener])


if __name__ == "__main__":
    main()

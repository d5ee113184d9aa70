"""A page on what a run's classifier confuses."""

from __future__ import annotations

from pathlib import Path

from tag2mask.commands import command, new_parser
from tag2mask.errors import InputError


@command("look through a run: what is confused with what")
def explore(arguments: list[str]) -> int:
    """Serve a page on the loopback address until it is stopped."""
    parser = new_parser(
        "explore",
        "tag2mask explore RUN [--port 0] [--no-browser]",
        "Open a page on any run: what each class is confused with, the negative prototypes and what they suppress, "
        "maps side by side, any photo of the set or a new one. Prototypes that really show their class can be ticked; "
        "the next training leaves them out (--tags.blocked). Serves this machine alone, until it is stopped by Ctrl-C.",
    )
    parser.add_argument("run", type=str, help="Folder of a run, the --out of `tag2mask train`.")
    parser.add_argument("--port", default=0, type=int, help="Port on 127.0.0.1; 0 chooses a free one.")
    parser.add_argument("--no-browser", action="store_true", help="Do not open a browser.")
    values = parser.parse_args(arguments)
    if not 0 <= values.port < 65536:
        raise InputError(f"--port is {values.port}; expected a number from 0 to 65535.")
    from tag2mask.explore.answers import Explorer
    from tag2mask.explore.server import Server

    server = Server(Explorer(Path(values.run)), values.port)
    print(f"explorer: {server.address}   Ctrl-C stops it", flush=True)
    try:
        if not values.no_browser:
            import threading
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()  # it may wait for us
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.server_close()
    return 0

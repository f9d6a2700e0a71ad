"""The command ``vdsr``, and ``python -m vdsr_cli``: signals first, as the rest takes a while."""

import sys

from vdsr_cli.cli.signals import end_on_signals, forget_signals, let_signals_come


def main() -> None:
    """Runs the command line; however it ends, no signal shows a traceback."""
    try:
        end_on_signals()
        from vdsr_cli.cli.app import main as run

        try:
            run()
        except Exception as error:
            let_signals_come(error)
            raise
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        forget_signals()


if __name__ == "__main__":
    main()

"""`python -m wavespark VERB` is `wavespark VERB`."""

from wavespark.cli.main import run

if __name__ == "__main__":
    run()

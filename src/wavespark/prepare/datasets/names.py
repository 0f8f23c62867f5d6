"""The data sets whose folders are known."""

from typing import Literal

DatasetName = Literal["auto", "plain", "rsna-2025", "openmind", "deeplesion", "bids"]

"""Fetch the raw data: render the scenes, download NUS-WIDE, or list the photos under data/."""

from pathlib import Path

from zerotag.data import sources
from zerotag.errors import plain_exit
from zerotag.settings import read_params

if __name__ == "__main__":  # its worker processes may import this file
    with plain_exit():
        params = read_params()
        name = params["source"]
        sources.fetch(name, params["sources"].get(name), Path("raw"), Path("work/download"), Path("downloads.lock"))

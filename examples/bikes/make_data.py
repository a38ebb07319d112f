"""Make data/bikes.csv from Bikeshare.csv of the Python package ISLP (see DATA.md).

    python make_data.py path/to/ISLP/data/Bikeshare.csv data/bikes.csv
"""

import sys

import pandas as pd


def main(source, target):
    table = pd.read_csv(source)
    day = pd.Timestamp("2011-01-01") + pd.to_timedelta(table.day - 1, unit="D")
    # The file has no dates; that the weekdays agree shows that `day` counts from 1 January 2011.
    assert ((day.dt.day_of_week + 1) % 7 == table.weekday).all()
    assert (table.casual + table.registered == table.bikers).all()
    table.insert(0, "time", (day + pd.to_timedelta(table.hr, unit="h")).dt.strftime("%Y-%m-%dT%H:%M:%S"))
    table.drop(columns=["casual", "registered", "day", "mnth"]).to_csv(target, index=False, lineterminator="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

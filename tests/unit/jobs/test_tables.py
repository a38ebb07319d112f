"""Datasets as files: broken ones are refused with the line, and a part of one keeps every value as it was."""

from __future__ import annotations

import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from controller.jobs.entry import WrongInput
from controller.jobs.tables import content_of, read_table, write_frame, write_rows


def csv_table(tmp_path, data, **more):
    path = tmp_path / "t.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(path, "t.csv", place="t.csv", **more)


def parquet_table(tmp_path, table, **more):
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    return read_table(path, "t.parquet", place="t.parquet", **more)


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        pytest.param(b"", "DataEmpty", "t.csv is empty", id="no byte"),
        pytest.param(b" \n\n", "DataEmpty", "t.csv is empty", id="blank lines only"),
        pytest.param(b"a,b\n", "DataEmpty", "header with 2 columns and no rows", id="a header only"),
        pytest.param(
            b"a;b\n1;2\n", "DataCorrupt", "separated by semicolons; write it with commas", id="semicolons"
        ),
        pytest.param(b"a\tb\n1\t2\n", "DataCorrupt", "separated by tabs", id="tabs"),
        pytest.param(
            b"a,b\n1,2\n3\n", "DataCorrupt", "line 3 has 1 fields, but the header has 2", id="a short line"
        ),
        pytest.param(b"a,b\n1,2,3\n", "DataCorrupt", "line 2 has 3 fields", id="a long line"),
        pytest.param(b'a,b\n1,"2\n3,4\n', "DataCorrupt", "is not CSV: unexpected end of data", id="an open quote"),
        pytest.param(
            b'a,b\n1,"' + b"x" * 200_000 + b'"\n',
            "DataCorrupt",
            "field larger than field limit",
            id="a huge field",
        ),
        pytest.param(b"a,b\n1,2\n3,\x004\n", "DataCorrupt", "line 3 has a NUL byte", id="a NUL byte"),
        pytest.param(b"a,b\n1,2\n\xe4,4\n", "DataCorrupt", "line 3 is not UTF-8 (byte 0xe4)", id="Latin-1"),
        pytest.param("a,b\n1,2\n".encode("utf-16"), "DataCorrupt", "is UTF-16; save it as UTF-8", id="UTF-16"),
        pytest.param(b"a,b\r1,2\r", "DataCorrupt", "is not CSV", id="line ends of old Macs"),
        pytest.param(b"a,b,a\n1,2,3\n", "SchemaMismatch", "has the column 'a' twice", id="a column twice"),
        pytest.param(b"PAR1abc", "DataCorrupt", "is a parquet file, but its name", id="parquet under a CSV name"),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "LFSPointer",
            "is a Git LFS pointer and not the data",
            id="an LFS pointer",
        ),
    ],
)
def test_a_broken_csv_is_refused_with_the_place(tmp_path, data, reason, words):
    with pytest.raises(WrongInput) as caught:
        csv_table(tmp_path, data)
    assert caught.value.reason == reason
    assert words in caught.value.message


AWKWARD = (
    "\ufeffid,text,number\r\n"
    '1,"two\nlines, and ""quotes""",1.10\r\n'
    "\r\n"
    "2,plain,007\r\n"
    "3,\u2028separator\x0b,NA\r\n"
    "4,last,1e300"
)


def test_a_part_keeps_every_byte_of_its_records(tmp_path):
    table = csv_table(tmp_path, AWKWARD)
    assert table.rows == len(table.frame) == 4
    out = tmp_path / "part" / "t.csv"
    write_rows(table, [0, 3], out)
    assert out.read_bytes().decode() == (
        '\ufeffid,text,number\r\n1,"two\nlines, and ""quotes""",1.10\r\n4,last,1e300\r\n'
    )
    write_rows(table, [1, 2], out)
    assert out.read_bytes().decode() == "\ufeffid,text,number\r\n2,plain,007\r\n3,\u2028separator\x0b,NA\r\n"


def test_values_are_those_of_pandas_and_cells_those_of_the_file(tmp_path):
    table = csv_table(tmp_path, AWKWARD, keep=["number", "absent"])
    expected = pd.read_csv(io.StringIO(AWKWARD.removeprefix("\ufeff"), newline=""))
    pd.testing.assert_frame_equal(table.frame, expected)
    assert table.cells == {"number": ["1.10", "007", "NA", "1e300"]}


def test_the_content_of_a_row_depends_neither_on_other_rows_nor_on_the_order_of_columns(tmp_path):
    first = csv_table(tmp_path, "a,b\n1,x\n2,y\n")
    second = csv_table(tmp_path, "b,a\ny,2\nz,\nx,1\n")
    assert first.content == [second.content[2], second.content[0]]
    assert csv_table(tmp_path, "a,b\n1,x\n1,y\n").content[0] == first.content[0]
    assert first.content[0] != first.content[1]


def test_rows_are_compared_by_common_columns(tmp_path):
    wide = csv_table(tmp_path, 'a,b,c\n1,"x\n",5\n2,y,6\n')
    narrow = csv_table(tmp_path, 'b,a\n"x\n",1\n')
    assert content_of(wide, ["a", "b"])[0] == narrow.content[0]


def test_parquet_rows_have_one_content_whatever_the_types_of_their_columns(tmp_path):
    days = pd.to_datetime(["2026-01-01T00:00:00.0", "2026-01-02T03:04:05.5"])
    plain = pa.table({"n": [1, 2], "t": pa.array(days, pa.timestamp("ns")), "c": ["a", "b"]})
    other = pa.table(
        {
            "c": pa.array(["a", "b", "b"]).dictionary_encode(),
            "n": pa.array([1.0, 2.0, None]),
            "t": pa.array([*days, None], pa.timestamp("ms")),
        }
    )
    assert parquet_table(tmp_path, plain).content == parquet_table(tmp_path, other).content[:2]
    assert (
        content_of(parquet_table(tmp_path, plain), ["n", "c"])
        == content_of(parquet_table(tmp_path, other), ["c", "n"])[:2]
    )


def test_a_parquet_part_keeps_types_and_values_and_forgets_the_other_rows(tmp_path):
    table = pa.table(
        {
            "big": pa.array([2**62 + 1, None, 3], pa.int64()),
            "small": pa.array([1, 2, 3], pa.int8()),
            "kind": pa.array(["kept", "secret-category", "kept"]).dictionary_encode(),
        },
        metadata={"note": "secret-note"},
    )
    read = parquet_table(tmp_path, table)
    out = tmp_path / "part.parquet"
    write_rows(read, [0, 2], out)
    part = pq.read_table(out)
    assert part.column("big").to_pylist() == [2**62 + 1, 3]
    assert part.schema.field("small").type == pa.int8()
    assert part.column("kind").to_pylist() == ["kept", "kept"]
    assert pa.types.is_dictionary(part.schema.field("kind").type)
    assert b"secret" not in out.read_bytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda data: data[: len(data) // 2], "cannot be read as parquet", id="truncated"),
        pytest.param(lambda data: b"XXXX" + data[4:], "does not begin with PAR1", id="wrong magic"),
        pytest.param(
            lambda data: data[:40] + b"\xff" * 40 + data[80:], "cannot be read as parquet", id="damaged page"
        ),
    ],
)
def test_a_damaged_parquet_file_is_refused(tmp_path, damage, words):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": list(range(1000))}), path, write_page_checksum=True)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WrongInput, match=words) as caught:
        read_table(path, "t.parquet", place="t.parquet")
    assert caught.value.reason == "DataCorrupt"


def test_nested_columns_are_named(tmp_path):
    with pytest.raises(WrongInput, match="the column 'tags' is list<"):
        parquet_table(tmp_path, pa.table({"tags": [["a"], ["b"]]}))


def test_parquet_without_rows_is_empty(tmp_path):
    with pytest.raises(WrongInput, match="has 1 columns and no rows"):
        parquet_table(tmp_path, pa.table({"a": pa.array([], pa.int64())}))


def test_a_column_of_mixed_types_is_refused_by_name(tmp_path):
    with pytest.raises(WrongInput, match=r"a column mixes types.*mixed"):
        write_frame(pd.DataFrame({"mixed": pd.Series([1, "a"], dtype=object)}), tmp_path / "x.parquet")


def test_an_unnamed_index_that_pandas_stored_is_no_column(tmp_path):
    path = tmp_path / "t.parquet"
    frame = pd.DataFrame({"a": [1, 2, 3]})
    frame[frame["a"] > 1].to_parquet(path)
    assert list(read_table(path, "t.parquet", place="t.parquet").frame.columns) == ["a"]

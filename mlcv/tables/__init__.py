"""Tables, what their cells and headers mean, and files as everything here opens them."""

from mlcv.tables.cells import Codes, Labels, column_labels, column_states, is_empty, minus_one
from mlcv.tables.class_names import (
    GROUP,
    NAME_COLUMNS,
    OUR_COLUMNS,
    RESERVED,
    TRUTH,
    check_class_names,
    find_name_column,
    is_shown,
)
from mlcv.tables.columns import Spelled
from mlcv.tables.files import exists, is_file, is_folder, open_regular, printable, read_lines, read_regular
from mlcv.tables.table import Table, read_header, read_once, read_table

__all__ = [
    "GROUP",
    "NAME_COLUMNS",
    "OUR_COLUMNS",
    "RESERVED",
    "TRUTH",
    "Codes",
    "Labels",
    "Spelled",
    "Table",
    "check_class_names",
    "column_labels",
    "column_states",
    "exists",
    "find_name_column",
    "is_empty",
    "is_file",
    "is_folder",
    "is_shown",
    "minus_one",
    "open_regular",
    "printable",
    "read_header",
    "read_lines",
    "read_once",
    "read_regular",
    "read_table",
]

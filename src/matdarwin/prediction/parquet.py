"""Parquet files in, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from matdarwin.data.sources import DataError
from matdarwin.data.tables import batches, texts
from matdarwin.prediction.chunks import Chunk, check_count


class ParquetTable:
    """A Parquet file, looked through once for damage; its columns keep their types.

    Args:
        path: The file.
        name: What to call it in messages, where that is not its path.

    Raises:
        DataError: The file is no Parquet, or is damaged.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        import pyarrow
        import pyarrow.parquet

        self.name = name or str(path)
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise DataError(f"{self.name}: cannot be read as Parquet: {error}") from error
        self.schema = self._file.schema_arrow
        self.columns = list(self.schema.names)
        self.count = int(self._file.metadata.num_rows)
        for _ in batches(self._file, self.name):
            pass

    def chunks(self, column: str, size: int) -> Iterator[Chunk]:
        """See `matdarwin.prediction.files.Table`."""
        place = self.columns.index(column)
        had = 0
        for batch in batches(self._file, self.name, batch_size=size):
            had += batch.num_rows
            yield Chunk(texts(batch.column(place), column, self.name), batch)
        check_count(self.name, self.count, had)

    def check_texts(self, columns: Sequence[str]) -> None:
        """Make sure that columns can be written as text.

        Raises:
            DataError: One holds what is no UTF-8; it is named.
        """
        import pyarrow.types as types

        # Numbers and times always can.
        places = [n for n, f in enumerate(self.schema) if f.name in columns and not types.is_primitive(f.type)]
        for batch in batches(self._file, self.name) if places else ():
            for place in places:
                texts(batch.column(place), self.columns[place], self.name)

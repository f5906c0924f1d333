"""An index on disk: the vectors of a corpus and its documents, searched without encoding the corpus again."""

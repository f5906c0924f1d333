"""Where records come from: files, folders, datasets, and sources made from them. Named and mapped in gin, no Python to write.

A source yields (location, record): the location is "file:line", for errors; a record holds the values of the roles that `fields`
maps. Those of text pairs are `query` and `target` (a text, or a list of which one is drawn an epoch), and optionally `title` (of
the target), `negatives` (a list), `query_prompt` and `target_prompt` (templates in place of the task's), `query_key` and
`target_key` (what decides that two items are the same, when that is not their text). Other features read roles of their own, such
as `score`, `scores` and `label` (`data.features`). Texts are cleaned and not empty; bad records are one-line DataErrors.
"""

from embed.sources.beir import BeirFolder, HuggingFaceBeir
from embed.sources.datasets import HuggingFaceDataset, Tfds
from embed.sources.derived import Choices, Entailments, TitleAndBody
from embed.sources.entities import EntityQueries
from embed.sources.fetcher import Fetching
from embed.sources.image_files import ImageFiles
from embed.sources.joined import Joined
from embed.sources.labelled_texts import LabelledTexts
from embed.sources.python_functions import PythonFunctions
from embed.sources.record_files import JsonLines, Parquet, TabSeparated
from embed.sources.tar_shards import TarShards
from embed.sources.web_images import WebImages

__all__ = [
    "BeirFolder",
    "Choices",
    "Entailments",
    "EntityQueries",
    "Fetching",
    "HuggingFaceBeir",
    "HuggingFaceDataset",
    "ImageFiles",
    "Joined",
    "JsonLines",
    "LabelledTexts",
    "Parquet",
    "PythonFunctions",
    "TabSeparated",
    "TarShards",
    "Tfds",
    "TitleAndBody",
    "WebImages",
]

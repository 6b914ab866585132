"""SQLite's statements on MLflow's tables. tests/tracking/test_private_names.py has their columns."""

from __future__ import annotations

# seconds to wait for another writer
WAIT = 60.0
# what SQLite does by itself, beside the tables
SCHEMA = "SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'view')"
REVISION = "SELECT version_num FROM alembic_version"
# a point that is sent again is equal in all columns of its key
METRIC = """
INSERT INTO metrics (key, value, is_nan, timestamp, run_uuid, step) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
# the value that MLflow's tables show: that of the last step, and of points of one step the latest
LATEST = """
INSERT INTO latest_metrics (key, value, is_nan, timestamp, run_uuid, step) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key, run_uuid) DO UPDATE
SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
WHERE (excluded.step, excluded.timestamp, excluded.value) > (step, timestamp, value)
"""
REPLACE = "DELETE FROM metrics WHERE run_uuid = ? AND key = ? AND step = ?"
REPLACE_LATEST = "DELETE FROM latest_metrics WHERE run_uuid = ? AND key = ? AND step = ?"
CURVES = "SELECT key FROM latest_metrics WHERE run_uuid = ?"
CURVE = "SELECT step, value, is_nan FROM metrics WHERE run_uuid = ? AND key = ?"
PARAM = "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
TAG = """
INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)
ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value
"""
RUN = """
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,
                  source_version, lifecycle_stage, artifact_uri, experiment_id)
VALUES (?, ?, 'UNKNOWN', '', '', ?, 'RUNNING', ?, '', 'active', ?, ?)
"""
# MLflow numbers them itself
EXPERIMENT = """
INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time)
VALUES (?, ?, 'active', ?, ?)
"""
NAMED = "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?"
PLACE = "SELECT artifact_location FROM experiments WHERE experiment_id = ? AND lifecycle_stage = 'active'"
ACTIVE = "SELECT 1 FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active'"
RESTORE = "UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL WHERE run_uuid = ?"
REOPEN = "UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?"
# the newest, in case that a person has copied the tags of a run
FIND = """
SELECT run_uuid, artifact_uri, status, lifecycle_stage = 'deleted' FROM runs JOIN tags USING (run_uuid)
WHERE tags.key = 'dlrun.id' AND tags.value = ? AND experiment_id = ? ORDER BY start_time DESC, run_uuid LIMIT 1
"""
USED = """
SELECT name, digest FROM inputs JOIN datasets ON dataset_uuid = source_id
WHERE source_type = 'DATASET' AND destination_type = 'RUN' AND destination_id = ?
"""
DATASET = """
INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source, dataset_profile)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
INPUT = """
INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id)
VALUES (?, 'DATASET', ?, 'RUN', ?) ON CONFLICT DO NOTHING
"""
WHICH = "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?"
INPUT_TAG = "INSERT INTO input_tags (input_uuid, name, value) VALUES (?, ?, ?)"
PARAMS = "SELECT key, value FROM params WHERE run_uuid = ?"
TAGS = "SELECT key, value FROM tags WHERE run_uuid = ?"
TAGGED = """
SELECT run_uuid, own.value FROM tags AS own JOIN tags AS sweep USING (run_uuid) JOIN runs USING (run_uuid)
WHERE own.key = ? AND sweep.key = 'dlrun.sweep' AND sweep.value = ? AND experiment_id = ?
"""
UNTAG = "DELETE FROM tags WHERE run_uuid = ? AND key = ?"
RENAME = "UPDATE runs SET name = ? WHERE run_uuid = ?"
CLOSE = "UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?"
DEFAULT_PLACE = "SELECT artifact_location FROM experiments WHERE experiment_id = 0"
MADE = "SELECT creation_time FROM experiments WHERE experiment_id = 0"
TABLES = "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
# the columns with places of artifacts; some versions of MLflow lack some
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
MOVE = """
UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1)
WHERE substr({column}, 1, length(:old)) = :old
"""
# of a run whose folder has no random id, the path is the id
MOVE_TAGS = """
UPDATE tags SET value = :new || substr(value, length(:old) + 1)
WHERE key IN ('dlrun.folder', 'mlflow.dlrun.folder', 'dlrun.id', 'dlrun.sweep', 'dlrun.reused_from')
AND substr(value, 1, length(:old)) = :old
"""

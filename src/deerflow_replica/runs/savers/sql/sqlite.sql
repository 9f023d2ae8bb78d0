-- name: heads_before_run
SELECT checkpoint_ns, max(checkpoint_id) AS checkpoint_id FROM checkpoints
WHERE thread_id = :thread_id AND json_extract(CAST(metadata AS TEXT), '$.run_id') IS NOT :run_id
GROUP BY checkpoint_ns
HAVING (checkpoint_ns, max(checkpoint_id)) IN (
    SELECT checkpoint_ns, parent_checkpoint_id FROM checkpoints
    WHERE thread_id = :thread_id AND json_extract(CAST(metadata AS TEXT), '$.run_id') = :run_id
)

-- name: is_built_upon
SELECT EXISTS (
    SELECT 1 FROM checkpoints AS made JOIN checkpoints AS later
        ON later.thread_id = made.thread_id AND later.checkpoint_ns = made.checkpoint_ns
        AND later.parent_checkpoint_id = made.checkpoint_id
    WHERE made.thread_id = :thread_id AND json_extract(CAST(made.metadata AS TEXT), '$.run_id') = :run_id
        AND json_extract(CAST(later.metadata AS TEXT), '$.run_id') IS NOT :run_id
        AND json_extract(CAST(later.metadata AS TEXT), '$.counters_since_delta_snapshot') IS NOT NULL
) AS found

-- name: delete_writes_of_run
DELETE FROM writes
WHERE thread_id = :thread_id AND (checkpoint_ns, checkpoint_id) IN (
    SELECT checkpoint_ns, checkpoint_id FROM checkpoints
    WHERE thread_id = :thread_id AND json_extract(CAST(metadata AS TEXT), '$.run_id') = :run_id
)

-- name: delete_checkpoints_of_run
DELETE FROM checkpoints
WHERE thread_id = :thread_id AND json_extract(CAST(metadata AS TEXT), '$.run_id') = :run_id

-- name: delete_later_writes
DELETE FROM writes
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND checkpoint_id = :checkpoint_id
    AND (task_id, channel) NOT IN (
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:keys)
    )

-- name: copy_checkpoints
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
SELECT :target, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
FROM checkpoints WHERE thread_id = :source

-- name: columns_of_writes
SELECT name FROM pragma_table_info('writes')

-- name: copy_writes
INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value)
SELECT :target, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value
FROM writes WHERE thread_id = :source

-- name: copy_writes_without_path
INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value)
SELECT :target, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value
FROM writes WHERE thread_id = :source

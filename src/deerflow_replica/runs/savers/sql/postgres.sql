-- name: heads_before_run
SELECT checkpoint_ns, max(checkpoint_id) AS checkpoint_id FROM checkpoints
WHERE thread_id = %(thread_id)s AND metadata ->> 'run_id' IS DISTINCT FROM %(run_id)s
GROUP BY checkpoint_ns
HAVING (checkpoint_ns, max(checkpoint_id)) IN (
    SELECT checkpoint_ns, parent_checkpoint_id FROM checkpoints
    WHERE thread_id = %(thread_id)s AND metadata ->> 'run_id' = %(run_id)s
)

-- name: is_built_upon
SELECT EXISTS (
    SELECT 1 FROM checkpoints AS made JOIN checkpoints AS later
        ON later.thread_id = made.thread_id AND later.checkpoint_ns = made.checkpoint_ns
        AND later.parent_checkpoint_id = made.checkpoint_id
    WHERE made.thread_id = %(thread_id)s AND made.metadata ->> 'run_id' = %(run_id)s
        AND later.metadata ->> 'run_id' IS DISTINCT FROM %(run_id)s
        AND later.metadata -> 'counters_since_delta_snapshot' IS NOT NULL
) AS found

-- name: delete_writes_of_run
DELETE FROM checkpoint_writes AS written USING checkpoints AS made
WHERE made.thread_id = %(thread_id)s AND made.metadata ->> 'run_id' = %(run_id)s
    AND written.thread_id = made.thread_id AND written.checkpoint_ns = made.checkpoint_ns
    AND written.checkpoint_id = made.checkpoint_id

-- name: delete_checkpoints_of_run
DELETE FROM checkpoints WHERE thread_id = %(thread_id)s AND metadata ->> 'run_id' = %(run_id)s

-- name: delete_later_writes
DELETE FROM checkpoint_writes
WHERE thread_id = %(thread_id)s AND checkpoint_ns = %(checkpoint_ns)s AND checkpoint_id = %(checkpoint_id)s
    AND (task_id, channel) NOT IN (SELECT * FROM unnest(%(task_ids)s::text[], %(channels)s::text[]))

-- name: copy_checkpoints
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
SELECT %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
FROM checkpoints WHERE thread_id = %(source)s

-- name: copy_blobs
INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
SELECT %(target)s, checkpoint_ns, channel, version, type, blob FROM checkpoint_blobs WHERE thread_id = %(source)s

-- name: copy_writes
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
FROM checkpoint_writes WHERE thread_id = %(source)s

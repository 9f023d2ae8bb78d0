-- name: create_assistants
CREATE TABLE IF NOT EXISTS {assistants} (
    assistant_id TEXT PRIMARY KEY,
    user_id TEXT,
    graph_id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    description TEXT,
    config TEXT NOT NULL,
    context TEXT NOT NULL,
    metadata TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
)

-- name: create_assistants_by_user
CREATE INDEX IF NOT EXISTS {assistants_by_user} ON {assistants} (user_id, created_at)

-- name: insert_assistant
INSERT INTO {assistants} (assistant_id, user_id, graph_id, name, name_folded, description, config, context, metadata,
    version, created_at, updated_at)
SELECT :assistant_id, :user_id, :graph_id, :name, :name_folded, :description, :config, :context, :metadata,
    1, :now, :now
WHERE true
ON CONFLICT (assistant_id) DO NOTHING
RETURNING *

-- name: get_assistant
SELECT * FROM {assistants} WHERE assistant_id = :assistant_id AND user_id IS :user_id

-- name: lock_assistant
SELECT * FROM {assistants} WHERE assistant_id = :assistant_id AND user_id IS :user_id

-- name: update_assistant
UPDATE {assistants}
SET graph_id = :graph_id, name = :name, name_folded = :name_folded, description = :description,
    config = :config, context = :context, metadata = :metadata, version = :version, updated_at = :now
WHERE assistant_id = :assistant_id
RETURNING *

-- name: delete_assistant
DELETE FROM {assistants} WHERE assistant_id = :assistant_id AND user_id IS :user_id
RETURNING assistant_id

-- name: search_assistants
SELECT * FROM {assistants}
WHERE user_id IS :user_id AND (:graph_id IS NULL OR graph_id = :graph_id)
    AND instr(name_folded, :name) > 0 AND json_contains(metadata, :metadata)
ORDER BY
    CASE WHEN :order = 'created_at_asc' THEN created_at WHEN :order = 'updated_at_asc' THEN updated_at END,
    CASE WHEN :order = 'created_at_desc' THEN created_at WHEN :order = 'updated_at_desc' THEN updated_at END DESC,
    CASE WHEN :order = 'name_asc' THEN name WHEN :order = 'graph_id_asc' THEN graph_id END,
    CASE WHEN :order = 'name_desc' THEN name WHEN :order = 'graph_id_desc' THEN graph_id END DESC,
    CASE WHEN :order LIKE '%_asc' THEN assistant_id END,
    assistant_id DESC
LIMIT :limit OFFSET :offset

-- name: count_assistants
SELECT count(*) AS found FROM {assistants}
WHERE user_id IS :user_id AND (:graph_id IS NULL OR graph_id = :graph_id)
    AND instr(name_folded, :name) > 0 AND json_contains(metadata, :metadata)

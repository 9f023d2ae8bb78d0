-- name: create_assistants
CREATE TABLE IF NOT EXISTS {assistants} (
    assistant_id text PRIMARY KEY,
    user_id text,
    graph_id text NOT NULL,
    name text NOT NULL,
    name_folded text NOT NULL,
    description text,
    config json NOT NULL,
    context json NOT NULL,
    metadata jsonb NOT NULL,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
)

-- name: create_assistants_by_user
CREATE INDEX IF NOT EXISTS {assistants_by_user} ON {assistants} (user_id, created_at)

-- name: insert_assistant
INSERT INTO {assistants} (assistant_id, user_id, graph_id, name, name_folded, description, config, context, metadata,
    version, created_at, updated_at)
SELECT %(assistant_id)s, %(user_id)s, %(graph_id)s, %(name)s, %(name_folded)s, %(description)s, %(config)s::json,
    %(context)s::json, %(metadata)s::jsonb, 1, now, now
FROM clock_timestamp() AS now
ON CONFLICT (assistant_id) DO NOTHING
RETURNING *

-- name: get_assistant
SELECT * FROM {assistants}
WHERE assistant_id = %(assistant_id)s AND user_id IS NOT DISTINCT FROM %(user_id)s::text

-- name: lock_assistant
SELECT * FROM {assistants}
WHERE assistant_id = %(assistant_id)s AND user_id IS NOT DISTINCT FROM %(user_id)s::text
FOR UPDATE

-- name: update_assistant
UPDATE {assistants}
SET graph_id = %(graph_id)s, name = %(name)s, name_folded = %(name_folded)s, description = %(description)s,
    config = %(config)s::json, context = %(context)s::json, metadata = %(metadata)s::jsonb, version = %(version)s,
    updated_at = clock_timestamp()
WHERE assistant_id = %(assistant_id)s
RETURNING *

-- name: delete_assistant
DELETE FROM {assistants}
WHERE assistant_id = %(assistant_id)s AND user_id IS NOT DISTINCT FROM %(user_id)s::text
RETURNING assistant_id

-- name: search_assistants
SELECT * FROM {assistants}
WHERE user_id IS NOT DISTINCT FROM %(user_id)s::text AND (%(graph_id)s::text IS NULL OR graph_id = %(graph_id)s)
    AND strpos(name_folded, %(name)s) > 0 AND metadata @> %(metadata)s::jsonb
ORDER BY
    CASE WHEN %(order)s = 'created_at_asc' THEN created_at WHEN %(order)s = 'updated_at_asc' THEN updated_at END,
    CASE WHEN %(order)s = 'created_at_desc' THEN created_at WHEN %(order)s = 'updated_at_desc' THEN updated_at END DESC,
    CASE WHEN %(order)s = 'name_asc' THEN name WHEN %(order)s = 'graph_id_asc' THEN graph_id END COLLATE "C",
    CASE WHEN %(order)s = 'name_desc' THEN name WHEN %(order)s = 'graph_id_desc' THEN graph_id END COLLATE "C" DESC,
    CASE WHEN %(order)s LIKE '%%_asc' THEN assistant_id END COLLATE "C",
    assistant_id COLLATE "C" DESC
LIMIT %(limit)s OFFSET %(offset)s

-- name: count_assistants
SELECT count(*) AS found FROM {assistants}
WHERE user_id IS NOT DISTINCT FROM %(user_id)s::text AND (%(graph_id)s::text IS NULL OR graph_id = %(graph_id)s)
    AND strpos(name_folded, %(name)s) > 0 AND metadata @> %(metadata)s::jsonb

-- name: vectors
CREATE TABLE IF NOT EXISTS {vectors} (
    namespace text COLLATE "C" NOT NULL, -- repeated, so that a ranked search need not read the items it passes over
    key text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL, -- where in the value the text is
    embedding {extension}.{vector_type}({dims}) NOT NULL,
    PRIMARY KEY (namespace, key, path),
    FOREIGN KEY (namespace, key) REFERENCES {items} (namespace, key) ON DELETE CASCADE
)

-- name: vectors_by_distance
CREATE INDEX IF NOT EXISTS {vectors_by_distance} ON {vectors} USING {kind} (embedding {extension}.{operators}) {options}

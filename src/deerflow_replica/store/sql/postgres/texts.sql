-- name: texts
CREATE TABLE IF NOT EXISTS {texts} (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (namespace, key),
    FOREIGN KEY (namespace, key) REFERENCES {items} (namespace, key) ON DELETE CASCADE
)

-- name: texts_by_word
CREATE INDEX IF NOT EXISTS {texts_by_word} ON {texts} USING gin (words)

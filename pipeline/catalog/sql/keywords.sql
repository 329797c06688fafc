-- Words of DuckDB's grammar.
SELECT upper(keyword_name) AS word, bool_or(keyword_category = 'reserved') AS is_reserved
FROM duckdb_keywords()
GROUP BY ALL
ORDER BY word;

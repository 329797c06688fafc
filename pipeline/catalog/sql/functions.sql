-- Functions of this connection; its macros are those that are not DuckDB's own.
SELECT function_name AS name, any_value(parameters) AS parameters, bool_or(NOT internal) AS is_macro
FROM duckdb_functions()
GROUP BY function_name
ORDER BY name;

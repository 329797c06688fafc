-- Tables and views of this connection with their columns, in order.
SELECT table_name AS name, list(column_name ORDER BY ordinal_position) AS columns
FROM information_schema.columns
WHERE table_catalog = current_database() AND table_schema = current_schema()
GROUP BY ALL
ORDER BY name;

-- Tables and views of this connection with their columns, in order; without those that others are made of.
SELECT table_name AS name, list(column_name ORDER BY ordinal_position) AS columns
FROM information_schema.columns
WHERE table_catalog = current_database() AND table_schema = current_schema()
AND table_name NOT IN (
    'centre_labels', 'chosen_listed_labels', 'chosen_lists', 'former_images', 'label_counts', 'named_labels',
    'reusing_images', 'stored_labels', 'stored_reviews', 'stored_spellings', 'superseded', 'todays_images',
    'unnamed_centre_labels', 'unnamed_labels', 'unnamed_view_labels', 'view_labels', 'written_labels'
)
GROUP BY ALL
ORDER BY name;

-- The names that most images list.
SELECT name, images, mean_score
FROM top_labels($run)
LIMIT 30;

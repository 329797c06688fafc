-- The names that most images list.
SELECT left(name, 200) AS name, images, mean_score
FROM top_labels($run)
$shown
LIMIT 30;

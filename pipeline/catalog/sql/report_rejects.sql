-- What could not be labelled, by class.
SELECT stage, left(error, 200) AS error, count(*) AS samples, left(any_value(message), 200) AS example
FROM rejects
WHERE run = $run
GROUP BY stage, error
ORDER BY samples DESC, error
LIMIT 50;

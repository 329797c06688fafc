-- What could not be labelled, by class.
SELECT stage, error, count(*) AS samples, any_value(message) AS example
FROM rejects
WHERE run = $run
GROUP BY stage, error
ORDER BY samples DESC, error
LIMIT 50;

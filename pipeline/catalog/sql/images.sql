-- Images of all runs. Those of runs that were made before `flat` was told have no such column in their files.
CREATE VIEW images AS
SELECT * FROM todays_images
UNION ALL BY NAME
SELECT * FROM former_images;

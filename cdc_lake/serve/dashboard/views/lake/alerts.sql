-- title: Alerts
-- kind: table
-- about: What rules found, the newest first, as it stood at the moment that is shown.
-- page: Alerts
-- order: 900
-- width: full
-- key: id
-- rows: 200
SELECT id,
    CASE WHEN resolved_at <= moment THEN 'resolved' WHEN acknowledged_at <= moment THEN 'acknowledged'
        ELSE 'open' END AS state,
    severity, rule, title, opened_at,
    CASE WHEN acknowledged_at <= moment THEN acknowledged_at END AS acknowledged_at,
    CASE WHEN acknowledged_at <= moment THEN acknowledged_by END AS acknowledged_by,
    CASE WHEN resolved_at <= moment THEN resolved_at END AS resolved_at,
    CASE WHEN resolved_at <= moment THEN resolved_by END AS resolved_by,
    evidence_count AS events
FROM lake.alerts, (SELECT CAST($clock AS TIMESTAMPTZ) AS moment)
WHERE opened_at <= moment
ORDER BY state = 'resolved', opened_at DESC, id

-- The three products of each category that bring in the most.
SELECT category, place, product_id, name, pieces, revenue
FROM (
    SELECT p.category, p.product_id, p.name, sum(l.quantity) AS pieces, sum(l.line_total) AS revenue,
           row_number() OVER (PARTITION BY p.category ORDER BY sum(l.line_total) DESC, p.product_id) AS place
    FROM order_lines l
    JOIN products p ON p.product_id = l.product_id
    GROUP BY p.category, p.product_id, p.name
) AS ranked
WHERE place <= 3
ORDER BY category, place

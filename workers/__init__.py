"""What happens later: deliveries and expiry."""

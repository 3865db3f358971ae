"""Drug response: tables -> splits -> members -> head of a bundle. See README.md beside this file."""

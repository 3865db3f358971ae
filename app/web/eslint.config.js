import tseslint from "typescript-eslint";

export default tseslint.config(...tseslint.configs.strict, {
  rules: {
    complexity: ["error", 12],
    "max-lines": ["error", 300],
    "@typescript-eslint/no-non-null-assertion": "off",
  },
});

// The scale of numbers. A measured gene and its imputed values share one, so that the two maps can be compared.
import { computed } from "@preact/signals";
import { rangeOf } from "./colour";
import { imputed, values } from "./state";

export const range = computed<[number, number] | null>(() => {
  if (!values.value || values.value.categories) return null;
  const measured = rangeOf(values.value.values);
  if (!imputed.value) return measured;
  const other = rangeOf(imputed.value.values);
  return [Math.min(measured[0], other[0]), Math.max(measured[1], other[1])];
});

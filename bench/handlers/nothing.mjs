// A handler that answers at once and touches nothing.
export default {
  size: '1GiB',
  read: ({ data }) => void data,
  write: ({ data }) => void data,
};
